"""Publishes the progress of a run: to its folder, its status, the operator, standard output and trackers."""
