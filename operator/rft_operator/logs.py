"""Shortens the last lines of a pod's log for a condition and an Event. Pure functions."""

from rft_run.cluster_text import MAX_READ, cluster_text

LINES = 10
"""Number of log lines that are requested from the API server."""
MAX_LINE = 200
MAX_TOTAL = 700
"""Largest number of characters of all lines together. Kubernetes allows 1,024 for the message of an Event."""


def last_lines(text: str) -> tuple[str, ...]:
    """Return the last lines of a log, oldest first: at most ``LINES`` lines and ``MAX_TOTAL`` characters.

    Secrets and empty lines are removed. Long lines are truncated.
    """
    kept: list[str] = []
    room = MAX_TOTAL
    # The text is cleaned before it is split into lines, because a secret may have several lines.
    for line in reversed(cluster_text(text, MAX_READ).splitlines()):
        short = _cut(line.rstrip())
        if not short:
            continue
        room -= len(short) + 1
        if room < 0 or len(kept) == LINES:
            break
        kept.append(short)
    return tuple(reversed(kept))


def _cut(line: str) -> str:
    return line if len(line) <= MAX_LINE else line[: MAX_LINE - 1] + "…"
