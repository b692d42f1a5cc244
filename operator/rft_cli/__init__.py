"""The command line ``rft``: checks, runs and watches RFTJobs.

The trainer runs as a child process. This package imports neither the trainer nor torch.
"""
