"""Defines the error that a user can fix, and its exit codes. This module imports no library."""

INVALID = 1
"""Exit code of a command whose input could be read, but is wrong or was refused."""
UNREADABLE = 2
"""Exit code of a command whose input cannot be read, or whose command line is wrong."""


class UserError(Exception):
    """An error that the user can fix. The message has the field, its value, what is allowed, and the
    correction.
    """

    def __init__(self, message: str, exit_code: int = INVALID) -> None:
        super().__init__(message)
        self.exit_code = exit_code
