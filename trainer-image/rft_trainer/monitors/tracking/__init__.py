"""Logs the metrics and parameters of a run to Weights & Biases, MLflow and TensorBoard.

The library of each of these backends runs in its own process. The training loop calls ``trackers``. In the
trainer, ``sender`` writes each call into a pipe. In the library's process, ``worker`` reads the calls from
the pipe. Each ``*_tracker`` uses one library.
"""
