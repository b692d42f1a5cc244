"""Logs the curves and parameters of a run to Weights & Biases, MLflow and TensorBoard.

The training loop calls ``trackers``. The library of each backend runs in its own process. In the trainer,
``sender`` writes calls into a pipe. In the library's process, ``worker`` reads them. Each ``*_tracker`` uses
one library.
"""
