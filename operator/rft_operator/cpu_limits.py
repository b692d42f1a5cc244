"""Finds whether the ResourceQuotas and LimitRanges of a namespace require a CPU limit for every container."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rft_operator.cluster import ClusterError, Unavailable

Raw = Mapping[str, Any]
Read = Callable[[str], Iterable[Raw]]

CACHED_SECONDS = 30.0
"""Seconds for which a namespace's entry stays in the cache."""
_log = logging.getLogger(__name__)


def asks_for_cpu_limit(quotas: Iterable[Raw], ranges: Iterable[Raw]) -> bool:
    """Return whether containers in a namespace need a CPU limit, because the API server may refuse them
    without one.

    It may refuse a container without a CPU limit if the namespace has:

    - a ResourceQuota on ``limits.cpu``
    - a LimitRange with a ratio of limit to request
    - a LimitRange with a maximum for whole pods

    If a LimitRange has a maximum or a default for containers, the API server sets the limit itself. So
    LimitRanges then do not make the result true, but such a ResourceQuota does.
    """
    return any(map(_quota_asks, quotas)) or _ranges_ask(ranges)


def _quota_asks(quota: Raw) -> bool:
    return "limits.cpu" in ((quota.get("spec") or {}).get("hard") or {})


def _ranges_ask(ranges: Iterable[Raw]) -> bool:
    items = [item for found in ranges for item in (found.get("spec") or {}).get("limits") or []]
    if any("cpu" in (item.get("default") or {}) for item in items):
        return False
    return any(
        "cpu" in (item.get("maxLimitRequestRatio") or {})
        or (item.get("type") == "Pod" and "cpu" in (item.get("max") or {}))
        for item in items
    )


class CpuLimits:
    """A cache that stores for each namespace whether containers need a CPU limit. Thread-safe."""

    def __init__(self, quotas: Read, ranges: Read, clock: Callable[[], float] = time.monotonic) -> None:
        """``quotas`` and ``ranges`` are functions that return a namespace's ResourceQuotas and
        LimitRanges.
        """
        self._quotas = quotas
        self._ranges = ranges
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, bool]] = {}

    def asked_for(self, namespace: str) -> bool:
        """Return whether containers in a namespace need a CPU limit.

        Return false if the operator may not read the ResourceQuotas and LimitRanges. If the API server then
        refuses the pod, the message of the API server names the missing field.

        Raises Unavailable if the API server does not answer. A guess could be wrong for the whole run,
        because the pod template of a Job cannot be changed later.
        """
        now = self._clock()
        with self._lock:
            self._known = {name: kept for name, kept in self._known.items() if now - kept[0] < CACHED_SECONDS}
            if namespace in self._known:
                return self._known[namespace][1]
        try:
            answer = asks_for_cpu_limit(self._quotas(namespace), self._ranges(namespace))
        except Unavailable:
            raise
        except ClusterError as error:
            _log.info("%s: the ResourceQuotas and LimitRanges cannot be read: %s", namespace, error)
            return False
        with self._lock:
            self._known[namespace] = now, answer
        return answer
