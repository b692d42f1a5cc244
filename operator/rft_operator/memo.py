"""What the last round about each RFTJob saw, for the rounds that only a report brings about.

A trainer's report changes nothing in the cluster, so reading it all anew, six requests, would tell nothing.
What was seen is good until a watch says that something changed, and for a few minutes at most, because a
watch that had to begin anew does not tell what was deleted in between. It is good for writing the status,
which the API server refuses where the RFTJob changed, and for nothing else: who acts reads first.
"""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from rft_operator.observe import Observed
from rft_operator.queue import Key

GOOD_SECONDS = 300.0


@dataclass(frozen=True)
class _Seen:
    document: bytes
    """As JSON: a tenth of what it takes as dictionaries, and there may be thousands."""
    observed: Observed
    at: float


class Memo:
    """What was seen, by RFTJob. Any thread may ask; a key is in one round at a time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[Key, _Seen] = {}
        self._changes: dict[Key, int] = {}

    def changed(self, key: Key) -> None:
        """Something of this RFTJob changed: what was seen, or is being read right now, is outdated."""
        with self._lock:
            self._seen.pop(key, None)
            self._changes[key] = self._changes.get(key, 0) + 1

    def begin(self, key: Key) -> int:
        """Return what ``keep`` wants to be told: it must be asked for before anything is read."""
        with self._lock:
            return self._changes.get(key, 0)

    def keep(self, key: Key, begun: int, document: dict[str, Any], observed: Observed) -> None:
        """Remember what was read since ``begun``, unless it changed meanwhile."""
        seen = _Seen(json.dumps(document).encode(), replace(observed, received=None, nodes=()), self._clock())
        with self._lock:
            if self._changes.get(key, 0) == begun:
                self._seen[key] = seen

    def written(self, key: Key, document: dict[str, Any]) -> None:
        """Remember the RFTJob as our own write left it."""
        # Who set which field is not read, and the largest part of an object.
        metadata = {name: value for name, value in document["metadata"].items() if name != "managedFields"}
        text = json.dumps({**document, "metadata": metadata}).encode()
        with self._lock:
            if key in self._seen:
                self._seen[key] = replace(self._seen[key], document=text)

    def get(self, key: Key) -> tuple[dict[str, Any], Observed] | None:
        """Return what was seen, ``None`` where it has to be read."""
        with self._lock:
            seen = self._seen.get(key)
        if seen is None or self._clock() - seen.at > GOOD_SECONDS:
            return None
        return dict(json.loads(seen.document)), seen.observed

    def forget(self, key: Key) -> None:
        """The RFTJob is gone."""
        with self._lock:
            self._seen.pop(key, None)
            self._changes.pop(key, None)
