"""The commands of ``rft``, with one module for each."""
