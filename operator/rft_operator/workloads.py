"""Kueue's Workloads, read every few seconds while a child Job waits, and not at all while none does.

They are read and not watched: a cluster without Kueue has no such kind, which is no error, and may get it at
any time.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from rft_operator.cluster import ClusterError, NotFound
from rft_operator.kueue import Workload, rounded, workload
from rft_operator.queue import Key

JOB_UID = "kueue.x-k8s.io/job-uid"
"""The label by which a Workload says for which Job it is."""
POLL_SECONDS = 3.0
_log = logging.getLogger(__name__)


class Workloads:
    """The Workloads of the Jobs that wait, as of a few seconds ago. Any thread may ask."""

    def __init__(
        self,
        read: Callable[[str], list[Any]] | None,
        read_places: Callable[[str, str], list[Any]] | None = None,
    ) -> None:
        """``read`` returns the Workloads of a namespace; without it nothing is known.

        ``read_places`` returns those that wait in a LocalQueue of it with their places.
        """
        self._read = read
        self._read_places = read_places
        self._lock = threading.Lock()
        self._waiting: dict[Key, str] = {}
        self._known: dict[str, Workload] = {}
        self._said = ""

    def of(self, key: Key, job_uid: str | None) -> Workload | None:
        """Return what is known of the Job of an RFTJob; ``None`` as ``job_uid`` means that none waits."""
        with self._lock:
            if job_uid is None or self._read is None:
                self._known.pop(self._waiting.pop(key, ""), None)
                return None
            self._waiting[key] = job_uid
            return self._known.get(job_uid)

    def look(self) -> list[Key]:
        """Read the Workloads of every namespace where a Job waits; return the RFTJobs that this changes."""
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
            items = self._read(namespace)
        except NotFound:
            return {}  # no Kueue here, or not yet
        except ClusterError as error:
            self._say(
                f"{namespace}: Kueue's Workloads cannot be read, so no one is told why jobs wait: {error}"
            )
            with self._lock:
                return {uid: each for uid, each in self._known.items() if uid in wanted}
        uids = {(item["metadata"].get("labels") or {}).get(JOB_UID): item for item in items}
        found = {uid: workload(item) for uid, item in uids.items() if uid in wanted}
        places: dict[str, int] = {}
        for queue in sorted({each.queue for each in found.values() if each.queue and not each.reserved}):
            places |= self._places(namespace, queue)
        return {uid: replace(each, place=rounded(places.get(each.name, 0))) for uid, each in found.items()}

    def _places(self, namespace: str, queue: str) -> dict[str, int]:
        """Return the place of each Workload of a LocalQueue; nothing where Kueue does not tell."""
        if self._read_places is None:
            return {}
        try:
            items = self._read_places(namespace, queue)
        except ClusterError as error:
            _log.debug("%s: the places in LocalQueue %s are not known: %s", namespace, queue, error)
            return {}
        return {item["metadata"]["name"]: int(item["positionInLocalQueue"]) + 1 for item in items}

    def _say(self, what: str) -> None:
        """Log what is new."""
        if what != self._said:
            _log.warning(what)
        self._said = what
