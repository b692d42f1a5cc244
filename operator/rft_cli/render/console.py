"""Writes to the terminal, and prints the messages of errors. No other module writes to the terminal.

A text may come from a stranger's manifest, from the status of another team's job, or from a model. So every
text passes ``visible``, which replaces control characters. ``tests/unit/test_shown_everywhere.py`` fails if
another module writes text.
"""

import functools
import sys
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from rft_api.controls import visible
from rft_cli.errors import UNREADABLE, UserError

P = ParamSpec("P")
R = TypeVar("R")

WIDE_ENOUGH = 4096
"""Width in characters of a console that does not truncate lines."""


class Terminal(Console):
    """A console of rich that replaces control characters by escape codes such as ``\\x1b``.

    It never interprets markup in a text.
    """

    def __init__(self, **options: Any) -> None:
        """Make the console. ``options`` are passed to ``Console`` of rich."""
        super().__init__(highlight=False, soft_wrap=True, markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a string as a text object of rich. Escape codes replace its control characters.

        They are replaced here, and not only in ``render``, so that rich knows the width of the printed text.
        """
        return super().render_str(visible(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments that rich writes. Escape codes replace the control characters in their texts.

        Segments in which rich itself controls the terminal stay unchanged.
        """
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))


def out(width: int | None = None, *, quiet: bool = False) -> Terminal:
    """Return a new console on the current ``sys.stdout``.

    - ``width``: the width in characters. None: the width of the terminal.
    - ``quiet``: whether the console writes nothing.
    """
    return Terminal(width=width, quiet=quiet, force_terminal=False if quiet else None)


def err() -> Terminal:
    """Return a new console on standard error."""
    return Terminal(stderr=True)


def write(text: str) -> None:
    """Write text such as YAML, JSON or a log to standard output, without wrapping and without colours."""
    typer.echo(visible(text))


def asked(question: str, option: str, default: str | None) -> str:
    """Ask a question on the terminal and return the answer. Without a terminal, return ``default``.

    - ``option``: the command-line option that gives the same answer, for the error message
    - ``default``: the answer if the user enters nothing; None: the user must enter something

    Raises:
        UserError: if there is no terminal, and ``default`` is None.
    """
    if sys.stdin.isatty() and sys.stdout.isatty():
        return str(typer.prompt(visible(question), default=default))
    if default is None:
        raise UserError(
            f"{option}: is missing; add it, because there is no terminal for a question", UNREADABLE
        )
    return default


def reports_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Decorate a command. If it raises a UserError, print the error's message and exit with the error's
    exit code.
    """

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except UserError as error:
            err().print(f"error: {error}")
            raise typer.Exit(error.exit_code) from None

    return wrapped
