"""The files and messages of a run, defined once for the operator, the trainer and ``rft``."""
