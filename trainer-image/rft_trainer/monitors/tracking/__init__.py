"""Curves and parameters of a run in Weights & Biases, MLflow and TensorBoard, beside the status.

The loop calls ``trackers``. Each backend's library runs in its own process: ``sender`` is the trainer's end
of the pipe to it, ``worker`` the other end. Each ``*_tracker`` uses one library.
"""
