"""The error that a user can fix, and its exit codes. This module imports no library."""

INVALID = 1
"""Exit code: the input was read and is wrong."""
UNREADABLE = 2
"""Exit code: the input cannot be read, or the command line is wrong."""


class UserError(Exception):
    """An error that the user can fix. The message has the field, the value, what is allowed and the fix."""

    def __init__(self, message: str, exit_code: int = INVALID) -> None:
        super().__init__(message)
        self.exit_code = exit_code
