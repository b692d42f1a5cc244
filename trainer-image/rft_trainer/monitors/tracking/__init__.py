"""Logs the curves and parameters of a run to Weights & Biases, MLflow and TensorBoard.

The loop calls ``trackers``. Each backend's library runs in its own process: ``sender`` writes calls into a
pipe to this process, and ``worker`` reads them there. Each ``*_tracker`` uses one library.
"""
