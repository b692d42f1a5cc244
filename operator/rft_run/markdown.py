"""Escapes foreign texts, such as completions, before they are put into a page of Markdown.

Without this, a text could make headings, links and HTML. It could also make pictures, which are downloaded
when someone reads the page.
"""

import re

from rft_api.controls import one_line

_MARKS = re.compile(
    # The marks of Markdown, and the characters that make links, HTML and the cells of a table. Characters
    # that are also common in names and formulas, such as the brackets of graders[0], are escaped only where
    # they have a meaning in Markdown.
    r"\\(?=[!-/:-@\[-`{-~])|[`*|]|<(?=[A-Za-z/!?])|\](?=[(\[:])|(?<!\w)_|_(?!\w)|~(?=~)|(?<=~)~"
    # At the beginning of the text: the marks of headings, quotations, and items of lists.
    r"|^(?:[#>=]|[-+](?=[\s-])|\d+(?=[.)](?:\s|$)))"
)


def escaped(text: str) -> str:
    """Return ``text`` as one line of Markdown that shows it literally. The line also fits into a cell of a
    table.
    """
    return _MARKS.sub(_backslashed, one_line(" ".join(text.split())))


def code(text: str) -> str:
    """Return ``text``, such as a path, as inline code in Markdown: on one line, between backticks."""
    line = one_line(text)
    fence = "`" * (max((len(run) for run in re.findall("`+", line)), default=0) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def _backslashed(found: re.Match[str]) -> str:
    return f"{found[0]}\\" if found[0].isdigit() else f"\\{found[0]}"
