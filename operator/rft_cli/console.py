"""The terminal, and errors that are one line instead of a traceback."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import typer
from rich.console import Console

P = ParamSpec("P")
R = TypeVar("R")

INVALID = 1
"""Exit code: the input was read and is wrong."""
UNREADABLE = 2
"""Exit code: the input cannot be read, or the command line is wrong."""


class UserError(Exception):
    """Something the user can put right; the message names field, value, what is allowed and the fix."""

    def __init__(self, message: str, exit_code: int = INVALID) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def out(width: int | None = None) -> Console:
    """Return a console on stdout. Made anew each time, so that it follows redirection."""
    return Console(highlight=False, soft_wrap=True, width=width)


def err() -> Console:
    """Return a console on stderr."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def reports_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Turn a UserError of a command into its message and exit code."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except UserError as error:
            err().print(f"error: {error}", markup=False)
            raise typer.Exit(error.exit_code) from None

    return wrapped
