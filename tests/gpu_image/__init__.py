"""Checks of the trainer's GPU image that run without a GPU: ``make gpu-image``."""
