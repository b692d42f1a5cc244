"""Publishes a run's progress: to its folder, the status, the operator, standard output and trackers."""
