"""Writes log records to standard error, without secrets: parts of their texts come from users, pods and the
API server.
"""

import logging
import sys

from rft_run.cluster_text import cluster_text

MAX_RECORD = 16 * 1024
"""Maximum number of characters of a log record, including its traceback."""
_INDENT = "    "


class LineFormatter(logging.Formatter):
    """A formatter that removes secrets and control characters from log records.

    It indents every line of a record after the first. So no line of a record looks like the start of another
    record.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return a log record as text, truncated to ``MAX_RECORD`` characters before its lines are
        indented.
        """
        return cluster_text(super().format(record), MAX_RECORD).replace("\n", f"\n{_INDENT}")


def write_error(error: Exception) -> None:
    """Write the reason why this process cannot start to standard error."""
    print(f"error: {cluster_text(str(error))}", file=sys.stderr)


def log_to_stderr(level: int, formatter: logging.Formatter) -> None:
    """Write all log records of this process that have at least the level ``level`` to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=[handler])
