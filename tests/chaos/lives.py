"""When the trainers of a job lived, as the kubelet told the API server and its audit log kept it."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path

from tests.chaos.jobs import UID_LABEL
from tests.kubectl import Object


@dataclass(frozen=True)
class Life:
    """One trainer container, from its start until its end; both to the second."""

    pod: str
    began: datetime
    ended: datetime
    """The end of time while nobody has told of it."""


def read(log: Path, start: int, name: str) -> Iterator[Object]:
    """Yield the audit events after byte ``start`` about objects that carry the name of an RFTJob."""
    with log.open("rb") as lines:
        lines.seek(start)
        for line in lines:
            # The last line may not be whole yet.
            if name.encode() in line and line.endswith(b"\n"):
                yield json.loads(line)


def lives(events: Iterable[Object], uid: str) -> list[Life]:
    """Return the lives of the trainers of the RFTJob with this UID, from events in their order."""
    found: dict[tuple[str, datetime], Life] = {}
    for event in events:
        pod = event.get("responseObject") or {}
        if pod.get("metadata", {}).get("labels", {}).get(UID_LABEL) == uid:
            for status in pod.get("status", {}).get("containerStatuses", []):
                if status["name"] == "trainer":
                    for life in _told(pod["metadata"]["name"], status.get("state", {})):
                        found[life.pod, life.began] = life
        if over := _over(event):
            # To the second, as the kubelet tells when a container began: else its successor seems too early.
            when = datetime.fromisoformat(event["stageTimestamp"]).replace(microsecond=0)
            for key, life in found.items():
                if life.pod == over:
                    found[key] = replace(life, ended=min(life.ended, when))
    return list(found.values())


def _over(event: Object) -> str | None:
    """Return the pod of which the kubelet tells that no container runs any more.

    It takes it away, or its phase is final. That may be all it tells: of a container that is removed before
    its end was told it forgets when it ended.
    """
    about = event.get("objectRef", {})
    if about.get("resource") != "pods" or not event["user"]["username"].startswith("system:node:"):
        return None
    phase = (event.get("responseObject") or {}).get("status", {}).get("phase")
    return str(about["name"]) if event["verb"] == "delete" or phase in ("Failed", "Succeeded") else None


def _told(pod: str, state: Object) -> Iterator[Life]:
    if running := state.get("running"):
        yield Life(pod, datetime.fromisoformat(running["startedAt"]), datetime.max.replace(tzinfo=UTC))
    terminated = state.get("terminated")
    if terminated and terminated.get("startedAt"):
        began, ended = (datetime.fromisoformat(terminated[name]) for name in ("startedAt", "finishedAt"))
        yield Life(pod, began, ended)


def at_once(found: Iterable[Life]) -> list[tuple[str, str, float]]:
    """Return the pairs of pods whose trainers lived at the same time, and for how many seconds."""
    pairs = []
    for one, other in combinations(found, 2):
        seconds = (min(one.ended, other.ended) - max(one.began, other.began)).total_seconds()
        if seconds > 0:
            pairs.append((one.pod, other.pod, seconds))
    return pairs
