"""The command line ``rft``: checks, runs and watches RFTJobs.

``rft run`` starts the trainer as a child process. This package imports neither the trainer nor torch.
"""
