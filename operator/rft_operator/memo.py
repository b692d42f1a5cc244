"""What is known about each RFTJob without asking: the object as it was told, and what the last round saw.

The watch tells every RFTJob whole, and so does the answer to each of our writes: it need not be read. An
outdated one does no harm, because the API server refuses what is written by it.

What was seen of the children is for the rounds that only a report brings about. A trainer's report changes
nothing in the cluster, so reading it all anew would tell nothing. It is good for writing the status, and for
nothing else: who acts reads first.

Both hold until a watch says that something changed, and for a few minutes at most, because a watch that had
to begin anew does not tell what was deleted in between.
"""

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rft_api.runconfig import RunConfig
from rft_operator.observe import Observed
from rft_operator.queue import Key

GOOD_SECONDS = 300.0


@dataclass(frozen=True)
class _Told:
    version: str
    document: bytes
    """As JSON: a tenth of what it takes as dictionaries, and there may be thousands."""
    at: float


@dataclass(frozen=True)
class _Seen:
    observed: Observed
    """Without the snapshot, which is most of it."""
    snapshot: bytes | None
    """As JSON, for the same reason."""
    at: float

    def whole(self) -> Observed:
        """Return what was seen."""
        if self.snapshot is None:
            return self.observed
        snapshot = RunConfig.model_validate_json(self.snapshot, by_alias=True, by_name=False)
        return replace(self.observed, snapshot=snapshot)


class Memo:
    """What is known, by RFTJob. Any thread may ask; a key is in one round at a time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._told: dict[Key, _Told] = {}
        self._seen: dict[Key, _Seen] = {}
        self._changes: dict[Key, int] = {}
        self._pods: dict[Key, str] = {}

    def tell(self, key: Key, document: Mapping[str, Any]) -> None:
        """Take the RFTJob as the watch or the answer to a write tells it, unless a newer one is known."""
        # Who set which field is not read, and the largest part of an object.
        metadata = {name: value for name, value in document["metadata"].items() if name != "managedFields"}
        version = str(metadata.get("resourceVersion", ""))
        told = _Told(version, json.dumps({**document, "metadata": metadata}).encode(), self._clock())
        with self._lock:
            known = self._told.get(key)
            if known is None or newest(known.version, version) == version:
                self._told[key] = told

    def document(self, key: Key) -> dict[str, Any] | None:
        """Return the RFTJob as it was told last; ``None`` where it has to be read."""
        with self._lock:
            told = self._told.get(key)
        return dict(json.loads(told.document)) if told is not None and self._good(told.at) else None

    def doubt(self, key: Key) -> None:
        """What was told is outdated or was never true: it has to be read."""
        with self._lock:
            self._told.pop(key, None)
        self.changed(key)

    def changed(self, key: Key, pods_version: str = "") -> None:
        """Something of this RFTJob changed: what was seen, or is being read right now, is outdated.

        ``pods_version`` is the resource version of a pod that changed.
        """
        with self._lock:
            self._seen.pop(key, None)
            self._changes[key] = self._changes.get(key, 0) + 1
            # What a watch tells when it begins anew may be older than what it told before.
            self._pods[key] = newest(self._pods.get(key, "0"), pods_version)

    def pods_version(self, key: Key) -> str:
        """Return the resource version that a list of pods must have to show what was told; "0" for any."""
        with self._lock:
            return self._pods.get(key, "0")

    def begin(self, key: Key) -> int:
        """Return what ``keep`` wants to be told: it must be asked for before anything is read."""
        with self._lock:
            return self._changes.get(key, 0)

    def keep(self, key: Key, begun: int, observed: Observed) -> None:
        """Remember what was read since ``begun``, unless it changed meanwhile."""
        snapshot = json.dumps(observed.snapshot.dump()).encode() if observed.snapshot is not None else None
        facts = replace(observed, received=None, nodes=(), workload=None, snapshot=None)
        seen = _Seen(facts, snapshot, self._clock())
        with self._lock:
            if self._changes.get(key, 0) == begun:
                self._seen[key] = seen

    def get(self, key: Key) -> tuple[dict[str, Any], Observed] | None:
        """Return the RFTJob and what was seen of its children, ``None`` where it has to be read."""
        with self._lock:
            seen = self._seen.get(key)
        document = self.document(key) if seen is not None and self._good(seen.at) else None
        return (document, seen.whole()) if document is not None and seen is not None else None

    def forget(self, key: Key) -> None:
        """The RFTJob is gone."""
        with self._lock:
            for known in (self._told, self._seen, self._changes, self._pods):
                known.pop(key, None)

    def _good(self, at: float) -> bool:
        return self._clock() - at <= GOOD_SECONDS


def newest(one: str, other: str) -> str:
    """Return the later of two resource versions of one kind of object, which are decimal numbers."""
    return max(one, other, key=lambda version: (len(version), version))
