"""Escapes texts for a page of Markdown, so that they are shown as they are. Pure functions.

Else a text could make headings, links, pictures that are fetched when the page is read, and HTML.
"""

import re

from rft_api.controls import one_line

_MARKS = re.compile(
    # Marks, and what makes links, HTML and the cells of a table. Single characters that are also common in
    # names and formulas, such as the brackets of graders[0], stay where they mean nothing.
    r"\\(?=[!-/:-@\[-`{-~])|[`*|]|<(?=[A-Za-z/!?])|\](?=[(\[:])|(?<!\w)_|_(?!\w)|~(?=~)|(?<=~)~"
    # At the beginning: headings, quotations, and items of lists.
    r"|^(?:[#>=]|[-+](?=[\s-])|\d+(?=[.)](?:\s|$)))"
)


def escaped(text: str) -> str:
    """Return a text for one line of a page, or for a cell of a table."""
    return _MARKS.sub(_backslashed, one_line(" ".join(text.split())))


def code(text: str) -> str:
    """Return a text as code, such as a path."""
    line = one_line(text)
    fence = "`" * (max((len(run) for run in re.findall("`+", line)), default=0) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def _backslashed(found: re.Match[str]) -> str:
    return f"{found[0]}\\" if found[0].isdigit() else f"\\{found[0]}"
