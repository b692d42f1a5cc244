"""One actor: who may hold the Lease, and until when. Decisions only; ``leadership`` carries them out.

The protocol is the leader election of Kubernetes' own controllers. No two machines' clocks are compared:
a holder says how long its record is good for, and whoever waits measures that time on a clock of its
own, from the moment when it saw the record for the first time. The holder counts from before its write
was sent, so it stops earlier than anybody can take over.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Any

Json = dict[str, Any]
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def clock() -> float:
    """Return seconds that never go back, and that go on while the machine sleeps where it can tell."""
    return time.clock_gettime(_CLOCK)


@dataclass(frozen=True)
class Terms:
    """How long the Lease is good for, in seconds. The shares are those of client-go: 15, 10 and 2."""

    duration: float = 15.0

    @property
    def deadline(self) -> float:
        """Seconds after its last renewal was sent after which the holder must not write any more."""
        return self.duration * 2 / 3

    @property
    def retry(self) -> float:
        """Seconds from one renewal, or one look at somebody else's Lease, to the next."""
        return self.duration * 2 / 15


@dataclass(frozen=True)
class Record:
    """What the Lease says. Two with one ``version`` are the same: nobody wrote in between."""

    holder: str
    duration: float
    version: str


@dataclass(frozen=True)
class Seen:
    """A record, and the moment of our own clock at which we had seen it first."""

    record: Record
    since: float


class Step(Enum):
    """What to do next."""

    ACQUIRE = auto()
    RENEW = auto()
    WAIT = auto()
    LOST = auto()


def record(lease: Json, terms: Terms) -> Record:
    """Read a Lease; one without a duration is good for ours."""
    spec = lease.get("spec") or {}
    seconds = spec.get("leaseDurationSeconds") or terms.duration
    return Record(spec.get("holderIdentity") or "", float(seconds), lease["metadata"]["resourceVersion"])


def look(before: Seen | None, now_there: Record | None, now: float) -> Seen | None:
    """Return what is seen after a look; a record that did not change keeps its first moment."""
    if now_there is None:
        return None
    if before is not None and before.record.version == now_there.version:
        return before
    return Seen(now_there, now)


def decide(seen: Seen | None, me: str, renewed: float | None, now: float, terms: Terms) -> Step:
    """Return the next step of the process ``me``.

    ``renewed`` is the moment just before our last successful write was sent, ``None`` before the first.
    A Lease that was deleted is lost too: between then and now somebody else may have made it and acted.
    """
    if renewed is not None:
        late = now - renewed >= terms.deadline
        return Step.LOST if late or seen is None or seen.record.holder != me else Step.RENEW
    # Our own name without a renewal is a write whose answer did not come.
    if seen is None or seen.record.holder in ("", me):
        return Step.ACQUIRE
    return Step.ACQUIRE if now - seen.since >= seen.record.duration else Step.WAIT


def written(lease: Json | None, holder: str, terms: Terms, now: datetime) -> Json:
    """Return the ``spec`` that names ``holder``. Its times are for people: nothing compares them."""
    before: Json = dict((lease or {}).get("spec") or {})
    moment = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = before | {"holderIdentity": holder, "renewTime": moment}
    spec["leaseDurationSeconds"] = max(1, round(terms.duration))
    if holder and holder != before.get("holderIdentity"):
        spec["acquireTime"] = moment
        spec["leaseTransitions"] = (before.get("leaseTransitions") or 0) + (lease is not None)
    return spec
