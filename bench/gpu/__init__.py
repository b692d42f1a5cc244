"""Measures on a machine with a GPU, in parts that each take less than nine minutes: ``make gpu-check``."""
