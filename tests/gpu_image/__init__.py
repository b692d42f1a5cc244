"""Checks of the trainer's image for GPUs that need no GPU: ``make gpu-image``."""
