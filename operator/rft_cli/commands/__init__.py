"""The commands of ``rft``, a module each."""
