"""Reads the Events that may say why a pod does not start, every few seconds while jobs wait for their pods.

These are the Warnings, and all Events about PersistentVolumeClaims. They are polled and not watched, because
only waiting jobs need them, and most Events are about other objects.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from rft_operator.cluster import ClusterError
from rft_operator.observe import Obstacle, obstacle
from rft_operator.obstacles import current
from rft_operator.queue import Key

POLL_SECONDS = 5.0
SELDOM_SECONDS = 30.0
"""Seconds between two reads of the Events of a namespace in which all waiting jobs have waited for the same
objects for at least a minute.

Such jobs may wait for days, and each read is a load on etcd. So the Events are read less often.
"""
_NEW_SECONDS = 60.0
_log = logging.getLogger(__name__)


class WarningEvents:
    """A cache of the Events about the objects for which jobs wait, such as pods and claims. Thread-safe."""

    def __init__(
        self, read: Callable[[str], Iterable[Any]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``read`` is a function that returns those Events of a namespace that may say why a pod does not
        start.
        """
        self._read, self._clock = read, clock
        self._lock = threading.Lock()
        self._waiting: dict[Key, frozenset[str]] = {}
        self._since: dict[Key, float] = {}
        self._read_at: dict[str, float] = {}
        self._known: dict[Key, tuple[Obstacle, ...]] = {}
        self._said: dict[str, str] = {}

    def of(self, key: Key, needed: frozenset[str]) -> tuple[Obstacle, ...]:
        """Return the cached Events about the objects in ``needed``, and poll these Events from now on.

        - ``key``: the job that waits for the objects.
        - ``needed``: the objects, named as in ``Obstacle.about``. If it is empty, the job does not wait. Then
          its cached Events are dropped.
        """
        with self._lock:
            if not needed:
                for kept in (self._waiting, self._known, self._since):
                    kept.pop(key, None)
                return ()
            if self._waiting.get(key) != needed:
                self._since[key] = self._clock()
            self._waiting[key] = needed
            return tuple(each for each in self._known.get(key, ()) if each.about in needed)

    def poll(self) -> list[Key]:
        """Read the Events of every namespace with a waiting job. Return the RFTJobs whose Events changed.

        A namespace is read only every ``SELDOM_SECONDS`` if in the last minute no job in it has begun to wait
        for an object.
        """
        now = self._clock()
        with self._lock:
            waiting = dict(self._waiting)
            fresh = {key[0] for key, since in self._since.items() if now - since < _NEW_SECONDS}
        changed: list[Key] = []
        for namespace in sorted({namespace for namespace, _ in waiting}):
            if namespace not in fresh and now - self._read_at.get(namespace, -math.inf) < SELDOM_SECONDS:
                continue
            self._read_at[namespace] = now
            jobs = {key: needed for key, needed in waiting.items() if key[0] == namespace}
            found = self._of_namespace(namespace, frozenset().union(*jobs.values()))
            if found is not None:
                changed += self._store(jobs, found)
        return changed

    def _of_namespace(self, namespace: str, wanted: frozenset[str]) -> list[Obstacle] | None:
        """Return the current Events about the objects ``wanted``, or ``None`` if they cannot be read."""
        now = datetime.now(UTC)
        try:
            read = (obstacle(raw) for raw in self._read(namespace))
            found = current((each for each in read if each.about in wanted), now)
        except ClusterError as error:
            self._say(
                namespace,
                f"{namespace}: Events cannot be read, so the status of a job may lack why its pod waits:"
                f" {error}",
            )
            return None
        self._said.pop(namespace, None)
        return found

    def _store(self, jobs: dict[Key, frozenset[str]], found: list[Obstacle]) -> list[Key]:
        changed = []
        with self._lock:
            for key, needed in jobs.items():
                if self._waiting.get(key) != needed:
                    continue  # the job now needs other objects, which the next poll looks for
                own = tuple(each for each in found if each.about in needed)
                if _content(own) != _content(self._known.get(key, ())):
                    changed.append(key)
                self._known[key] = own
        return changed

    def _say(self, namespace: str, what: str) -> None:
        """Log ``what`` as a warning, unless the last warning about ``namespace`` had the same text."""
        if self._said.get(namespace) != what:
            _log.warning(what)
        self._said[namespace] = what


def _content(found: tuple[Obstacle, ...]) -> set[tuple[str, str, str]]:
    """Return the content of Events without their times. A repeated Event has the same content, so it is not a
    change.
    """
    return {(each.about, each.reason, each.message) for each in found}
