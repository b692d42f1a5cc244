"""Counts the operator's requests in the API server's audit log."""

import json
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from bench.scale.api import Json

AGENTS = ("rft-operator", "kopf/")
"""Beginnings of the user agent in the operator's requests."""


class Audit:
    """Reads the operator's requests from the API server's audit log."""

    def __init__(self, log: Path) -> None:
        """``log``: the path of the audit log."""
        self._log = log

    def between(self, since: float, until: float) -> Counter[str]:
        """Return the number of requests by verb and resource, such as ``patch rftjobs/status``.

        A request counts if the API server received it at ``since`` or later, and before ``until``. Both are
        in seconds of the clock ``time.time``.
        """
        found: Counter[str] = Counter()
        for event in self._events():
            moment = datetime.fromisoformat(event["requestReceivedTimestamp"]).timestamp()
            if since <= moment < until:
                reference = event.get("objectRef", {})
                what = "/".join(filter(None, (reference.get("resource"), reference.get("subresource"))))
                found[f"{event['verb']} {what}"] += 1
        return found

    def _events(self) -> Iterator[Json]:
        with self._log.open("rb") as log:
            for line in log:
                # The last line may be incomplete.
                if any(f'"{agent}'.encode() in line for agent in AGENTS) and line.endswith(b"\n"):
                    event = json.loads(line)
                    if event["userAgent"].startswith(AGENTS) and event["stage"] != "ResponseStarted":
                        yield event


def standing(asked: Counter[str]) -> Counter[str]:
    """Return only the requests that an idle operator sends too: watches, and requests for its Lease."""
    return Counter({what: n for what, n in asked.items() if what.startswith("watch ") or "leases" in what})
