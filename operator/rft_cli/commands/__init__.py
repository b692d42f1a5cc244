"""The commands of the program ``rft``, one module for each. Suspend, resume and cancel share a module."""
