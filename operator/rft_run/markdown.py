"""Pure functions that escape texts for a page of Markdown, so that the page shows them literally.

A text that is not escaped could make headings, links and HTML. It could also make pictures, which are
downloaded when someone reads the page.
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
    """Return a text on one line, with the marks of Markdown escaped. It also fits into a cell of a table."""
    return _MARKS.sub(_backslashed, one_line(" ".join(text.split())))


def code(text: str) -> str:
    """Return a text, such as a path, as inline code in Markdown."""
    line = one_line(text)
    fence = "`" * (max((len(run) for run in re.findall("`+", line)), default=0) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def _backslashed(found: re.Match[str]) -> str:
    return f"{found[0]}\\" if found[0].isdigit() else f"\\{found[0]}"
