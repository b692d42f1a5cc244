"""Defines the files and messages of a run, once for the operator, the trainer and ``rft``."""
