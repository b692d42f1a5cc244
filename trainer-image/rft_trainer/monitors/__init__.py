"""Where a run can be watched: its folder, the status, the operator, standard output and trackers."""
