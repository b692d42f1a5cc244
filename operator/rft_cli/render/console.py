"""Makes the consoles for the output of commands, and prints errors as one line instead of a traceback."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import typer
from rich.console import Console

from rft_cli.errors import UserError

P = ParamSpec("P")
R = TypeVar("R")

WIDE_ENOUGH = 4096
"""Width in columns of a console that does not truncate lines."""


def out(width: int | None = None) -> Console:
    """Return a console on standard output.

    It is created at each call, so that it uses the current ``sys.stdout``.
    """
    return Console(highlight=False, soft_wrap=True, width=width)


def err() -> Console:
    """Return a console on standard error."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def reports_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Decorate a command. If it raises a UserError, print the error's message and exit with the error's
    exit code.
    """

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except UserError as error:
            err().print(f"error: {error}", markup=False)
            raise typer.Exit(error.exit_code) from None

    return wrapped
