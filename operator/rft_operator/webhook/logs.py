"""Writes each log record of the webhook as one line of JSON, for log collectors. The bodies of requests are
never logged.
"""

import json
import logging
from datetime import UTC, datetime

from rft_operator.log_lines import MAX_RECORD, log_to_stderr
from rft_run.cluster_text import cluster_object


class JsonFormatter(logging.Formatter):
    """Formats a log record as one line of JSON. If the log call passes a dict as ``extra["fields"]``, the
    entries of this dict are added.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return a log record as one line of JSON, with the keys time, level, logger and message."""
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(cluster_object(json.loads(json.dumps(entry, default=str)), MAX_RECORD))


def log_as_json(level: int) -> None:
    """Write all log records of ``level`` and above to standard error, each as one line of JSON."""
    log_to_stderr(level, JsonFormatter())
