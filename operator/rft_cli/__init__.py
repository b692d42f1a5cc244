"""The command line ``rft``: checks manifests of RFTJobs, trains on this machine, and watches jobs in a
cluster.

``rft run`` starts the trainer as a child process. This package imports neither the trainer nor torch.
"""
