"""``rft``: check, run and watch RFTJobs from a terminal.

The trainer runs as a child process. This package imports neither the trainer nor torch.
"""
