"""Shortens the warnings in the webhook's answers, because the API server truncates or drops warnings that are
too long.
"""

from collections.abc import Sequence

MAX_WARNING = 256
"""Maximum number of characters of one warning in the webhook's answer."""
MAX_WARNINGS = 4096
"""Maximum number of characters of all warnings together in the answer to one request."""
_NOTE = "{} more warnings are left out, because of the API server's limit"


def fitted(texts: Sequence[str]) -> list[str]:
    """Return as many of the warnings ``texts`` as the API server passes on, in the same order. Each becomes
    one line of at most ``MAX_WARNING`` characters, and all together have at most ``MAX_WARNINGS``.

    If some warnings are left out, one more warning at the end says how many.
    """
    lines = [_cut(_one_line(text)) for text in texts]
    if sum(map(len, lines)) <= MAX_WARNINGS:
        return lines
    room = MAX_WARNINGS - len(_note(len(lines)))
    kept: list[str] = []
    for line in lines:
        room -= len(line)
        if room < 0:
            break
        kept.append(line)
    return [*kept, _note(len(lines) - len(kept))]


def _note(count: int) -> str:
    return _NOTE.format(count)


def _one_line(text: str) -> str:
    # The API server sends each warning as an HTTP header, and drops warnings with control characters.
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _cut(line: str) -> str:
    return line if len(line) <= MAX_WARNING else line[: MAX_WARNING - 1] + "…"
