"""Reads Kueue's Workloads every few seconds, but only while a child Job is suspended.

Workloads are polled and not watched, because Kueue may be missing, or may be installed later. Without Kueue
the API server does not know the kind Workload, and this must not count as an error.
"""

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from rft_operator.cluster import ClusterError, NotFound
from rft_operator.kueue import BEYOND, PLACES, Workload, rounded, workload
from rft_operator.queue import Key

JOB_UID = "kueue.x-k8s.io/job-uid"
"""Key of the label whose value is the UID of a Workload's Job."""
POLL_SECONDS = 3.0
_log = logging.getLogger(__name__)


class Workloads:
    """A cache of the Workloads of suspended child Jobs. Thread-safe."""

    def __init__(
        self,
        read: Callable[[str], Iterable[Any]] | None,
        read_places: Callable[[str, str], list[Any]] | None = None,
    ) -> None:
        """Make a cache with two functions that read from the API server.

        - ``read``: returns the Workloads of a namespace. ``None``: Workloads are never read.
        - ``read_places``: returns the pending Workloads of a LocalQueue with their positions. Its arguments
          are the namespace and the name of the LocalQueue. ``None``: no position is known.
        """
        self._read = read
        self._read_places = read_places
        self._lock = threading.Lock()
        self._waiting: dict[Key, str] = {}
        self._known: dict[str, Workload] = {}
        self._errors: dict[str, str] = {}

    def of(self, key: Key, job_uid: str | None) -> Workload | None:
        """Return the cached Workload of a suspended child Job, or ``None`` if it was not read yet. From now
        on, each ``poll`` reads the Workload.

        - ``key``: the RFTJob.
        - ``job_uid``: the UID of the child Job. ``None``: stop polling for this RFTJob, and return ``None``.
        """
        with self._lock:
            if job_uid is None or self._read is None:
                self._known.pop(self._waiting.pop(key, ""), None)
                return None
            self._waiting[key] = job_uid
            return self._known.get(job_uid)

    def poll(self) -> list[Key]:
        """Read the Workloads of all suspended Jobs, one namespace after another. Return the RFTJobs whose
        Workload changed.
        """
        with self._lock:
            waiting = dict(self._waiting)
        wanted = set(waiting.values())
        found: dict[str, Workload] = {}
        for namespace in sorted({namespace for namespace, _ in waiting}):
            found |= self._of_namespace(namespace, wanted)
        with self._lock:
            changed = [key for key, uid in waiting.items() if found.get(uid) != self._known.get(uid)]
            still = set(self._waiting.values())
            self._known = {uid: each for uid, each in found.items() if uid in still}
        return changed

    def _of_namespace(self, namespace: str, wanted: set[str]) -> dict[str, Workload]:
        assert self._read is not None
        try:
            found = {
                uid: workload(item) for item in self._read(namespace) if (uid := _job_of(item)) in wanted
            }
        except NotFound:
            return {}  # Kueue is not installed
        except ClusterError as error:
            self._warn(namespace, f"{error}")
            with self._lock:
                return {uid: each for uid, each in self._known.items() if uid in wanted}
        places: dict[str, int] = {}
        for queue in sorted({each.queue for each in found.values() if each.queue and not each.reserved}):
            waiting = [each.name for each in found.values() if each.queue == queue and not each.reserved]
            places |= self._places(namespace, queue, waiting)
        return {uid: replace(each, place=rounded(places.get(each.name, 0))) for uid, each in found.items()}

    def _places(self, namespace: str, queue: str, names: Iterable[str]) -> dict[str, int]:
        """Return the positions of the Workloads ``names`` in a LocalQueue, counted from 1. The keys are the
        names of the Workloads.

        The position is ``BEYOND`` if the answer has ``PLACES[-1]`` other Workloads. A Workload with an
        unknown position is left out. The result is empty if the positions cannot be read, for example
        because Kueue has no visibility API.
        """
        if self._read_places is None:
            return {}
        try:
            items = self._read_places(namespace, queue)
        except ClusterError as error:
            _log.debug("%s: the positions in LocalQueue %s cannot be read: %s", namespace, queue, error)
            return {}
        found = {item["metadata"]["name"]: int(item["positionInLocalQueue"]) + 1 for item in items}
        if len(items) < PLACES[-1]:
            return found
        return {name: found.get(name, BEYOND) for name in names}

    def _warn(self, namespace: str, error: str) -> None:
        """Log why a namespace's Workloads cannot be read, unless the last error there had the same text."""
        if self._errors.get(namespace) != error:
            _log.warning(
                "%s: Kueue's Workloads cannot be read, so a status may lack why its job waits: %s",
                namespace,
                error,
            )
        self._errors[namespace] = error


def _job_of(item: Any) -> str:
    """Return the UID of the Job of a Workload, from a label of the Workload. Return "" if the label is
    missing.
    """
    return str((item["metadata"].get("labels") or {}).get(JOB_UID) or "")
