"""Curves and parameters of a run in Weights & Biases, MLflow and TensorBoard, beside the status.

``trackers`` is what the loop calls, ``sender`` and ``worker`` are the two ends of the pipe to the process in
which a backend's library runs, and each ``*_tracker`` speaks one library.
"""
