"""Reads and writes the files of a training run, and the messages between operator, trainer and the command
line ``rft``.

All three programs import this package, so that they agree on the format of each file and message.
"""
