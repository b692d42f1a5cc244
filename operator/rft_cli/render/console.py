"""Writes to the terminal, and asks questions there. No other module writes to the terminal.

A text may come from a stranger's manifest, from the status of another team's job, or from a model. So every
text passes ``visible``, which replaces control characters. ``tests/unit/test_shown_everywhere.py`` fails if
another module writes to the terminal.
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
"""Width in characters of a console on which no line is truncated."""


class Terminal(Console):
    """A console of the library rich that prints control characters as escape codes such as ``\\x1b``.

    It never interprets markup in a text.
    """

    def __init__(self, **options: Any) -> None:
        """Make the console. ``options`` are passed to ``Console`` of rich."""
        super().__init__(highlight=False, soft_wrap=True, markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Convert a string to a text object of rich, in which escape codes replace control characters.

        Control characters are replaced here, and not only in ``render``, so that rich knows the width of the
        printed text.
        """
        return super().render_str(visible(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Convert an object to the segments of text that rich writes to the terminal.

        Escape codes replace control characters in the texts. Segments with which rich itself controls the
        terminal stay unchanged.
        """
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))


def out(width: int | None = None, *, quiet: bool = False) -> Terminal:
    """Return a new console that writes to the current ``sys.stdout``.

    - ``width``: the width in characters. None: the width of the terminal.
    - ``quiet``: whether the console writes nothing.
    """
    return Terminal(width=width, quiet=quiet, force_terminal=False if quiet else None)


def err() -> Terminal:
    """Return a new console that writes to standard error."""
    return Terminal(stderr=True)


def write(text: str) -> None:
    """Write a text such as YAML, JSON or a log to standard output, without wrapping and without colours.

    Control characters are replaced by escape codes.
    """
    typer.echo(visible(text))


def asked(question: str, option: str, default: str | None) -> str:
    """Ask a question on the terminal and return the answer. Without a terminal, return ``default``.

    - ``option``: the command-line option that gives the answer without a question, for the error message
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
    """Decorate a command of the CLI, so that it reports errors of the user without a traceback.

    If the command raises a UserError, print the error's message to standard error, and exit with the error's
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
