"""Decides who may hold the Lease of the leader election, and until when, without I/O. The module
``leadership`` sends the requests.

The protocol is that of client-go. It never compares the clocks of two machines. The Lease contains its
duration, and each process measures this duration with its own clock:

- The holder measures from the time just before it sent its last write of the Lease.
- A candidate, which is a process that waits for the Lease, measures from the time when it first read this
  write.

So the holder stops before a candidate can take over.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Any

Json = dict[str, Any]
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def clock() -> float:
    """Return a monotonic time in seconds. On Linux it includes time in which the machine was suspended."""
    return time.clock_gettime(_CLOCK)


@dataclass(frozen=True)
class Terms:
    """The durations of the leader election in seconds.

    ``duration`` is 15 by default. ``deadline`` and ``retry`` are fixed shares of it: 10 and 2 if it is 15.
    These are the values of client-go.
    """

    duration: float = 15.0

    @property
    def deadline(self) -> float:
        """Seconds for which the holder may write, counted from when it sent its last renewal of the Lease."""
        return self.duration * 2 / 3

    @property
    def retry(self) -> float:
        """Seconds between two renewals, or between two reads of a Lease that another process holds."""
        return self.duration * 2 / 15


@dataclass(frozen=True)
class LeaseRecord:
    """The content of a Lease. ``duration`` is in seconds.

    ``version`` is the resource version of the Lease, which changes with every write.
    """

    holder: str
    duration: float
    version: str


@dataclass(frozen=True)
class Seen:
    """A record of the Lease. ``since`` is the time on this process's clock when it first read the record."""

    record: LeaseRecord
    since: float


class LeaseStep(Enum):
    """The next step of a process in the leader election. ``LOST``: the process has lost the Lease."""

    ACQUIRE = auto()
    RENEW = auto()
    WAIT = auto()
    LOST = auto()


def record(lease: Json, terms: Terms) -> LeaseRecord:
    """Return the record in a Lease. If the Lease has no duration, the record gets the duration of
    ``terms``.
    """
    spec = lease.get("spec") or {}
    seconds = spec.get("leaseDurationSeconds") or terms.duration
    return LeaseRecord(spec.get("holderIdentity") or "", float(seconds), lease["metadata"]["resourceVersion"])


def look(before: Seen | None, now_there: LeaseRecord | None, now: float) -> Seen | None:
    """Return the present record of the Lease, with the time when this process first read it. Return ``None``
    if there is no Lease.

    - ``before``: the previous result of this function. It is returned if the record has not changed.
    - ``now_there``: the present record, or ``None`` if there is no Lease.
    - ``now``: the present time in seconds, as ``clock`` returns it. A changed record gets this time.
    """
    if now_there is None:
        return None
    if before is not None and before.record.version == now_there.version:
        return before
    return Seen(now_there, now)


def decide(seen: Seen | None, me: str, renewed: float | None, now: float, terms: Terms) -> LeaseStep:
    """Return the next step of the process ``me`` in the leader election.

    - ``seen``: the Lease as the process last read it, or ``None`` if there is none.
    - ``renewed``: the time just before the process sent its last successful write of the Lease. ``None``
      before its first write.
    - ``now``: the present time. Both times are in seconds, as ``clock`` returns them.

    If the process held the Lease, a deleted Lease counts as lost, because another process may have held it in
    between.
    """
    if renewed is not None:
        late = now - renewed >= terms.deadline
        return LeaseStep.LOST if late or seen is None or seen.record.holder != me else LeaseStep.RENEW
    # The Lease may name this process although no write has succeeded: the answer to a write was lost.
    if seen is None or seen.record.holder in ("", me):
        return LeaseStep.ACQUIRE
    return LeaseStep.ACQUIRE if now - seen.since >= seen.record.duration else LeaseStep.WAIT


def written(lease: Json | None, holder: str, terms: Terms, now: datetime) -> Json:
    """Return the ``spec`` to write into the Lease, so that ``holder`` holds it. If ``holder`` is empty,
    nobody holds it.

    ``lease`` is the present Lease, or ``None`` if there is none. The timestamps in the ``spec`` are for
    people: no decision uses them.
    """
    before: Json = dict((lease or {}).get("spec") or {})
    moment = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = before | {"holderIdentity": holder, "renewTime": moment}
    spec["leaseDurationSeconds"] = max(1, round(terms.duration))
    if holder and holder != before.get("holderIdentity"):
        spec["acquireTime"] = moment
        spec["leaseTransitions"] = (before.get("leaseTransitions") or 0) + (lease is not None)
    return spec
