"""Defines the class of errors that the user can fix, and the exit codes of ``rft`` for them.

This module imports no other module.
"""

INVALID = 1
"""Exit code of ``rft`` if the input could be read, but is wrong or was refused."""
UNREADABLE = 2
"""Exit code of ``rft`` if the input cannot be read, or the command line is wrong."""


class UserError(Exception):
    """An error that the user can fix. ``rft`` prints the message and ends with ``exit_code``.

    The message says which field or option is wrong, what is allowed, and how to correct it.
    """

    def __init__(self, message: str, exit_code: int = INVALID) -> None:
        super().__init__(message)
        self.exit_code = exit_code
