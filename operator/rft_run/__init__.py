"""Defines the files and messages of a run. The operator, the trainer and ``rft`` share these definitions."""
