"""Reads from the API server's audit log when a job's trainers started and ended."""

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
    """Start and end time of one trainer container, in whole seconds."""

    pod: str
    began: datetime
    ended: datetime
    """When the container ended. The largest datetime if it has not ended yet."""


def read(log: Path, start: int, name: str) -> Iterator[Object]:
    """Yield the audit events after byte ``start`` of ``log`` that contain ``name``, the name of an RFTJob."""
    with log.open("rb") as lines:
        lines.seek(start)
        for line in lines:
            # The last line may be incomplete.
            if name.encode() in line and line.endswith(b"\n"):
                yield json.loads(line)


def lives(events: Iterable[Object], uid: str) -> list[Life]:
    """Return the start and end time of each trainer container of the RFTJob with this UID.

    ``events`` are the API server's audit events, the oldest first.
    """
    found: dict[tuple[str, datetime], Life] = {}
    for event in events:
        pod = event.get("responseObject") or {}
        if pod.get("metadata", {}).get("labels", {}).get(UID_LABEL) == uid:
            for status in pod.get("status", {}).get("containerStatuses", []):
                if status["name"] == "trainer":
                    for life in _told(pod["metadata"]["name"], status.get("state", {})):
                        found[life.pod, life.began] = life
        if over := _over(event):
            # Rounded down to whole seconds, like the kubelet's start times. Otherwise the next trainer could
            # seem to start before this one ended.
            when = datetime.fromisoformat(event["stageTimestamp"]).replace(microsecond=0)
            for key, life in found.items():
                if life.pod == over:
                    found[key] = replace(life, ended=min(life.ended, when))
    return list(found.values())


def _over(event: Object) -> str | None:
    """Return the name of a pod if an audit event shows that all containers of the pod have ended, else None.

    Such an event is a request of the kubelet that deletes the pod, or sets the pod's phase to Failed or
    Succeeded. Sometimes the kubelet removes a container before it has reported the container's end. Then only
    such an event shows that the container has ended.
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
    """Return each pair of pods whose trainers ran at the same time, and for how many seconds."""
    pairs = []
    for one, other in combinations(found, 2):
        seconds = (min(one.ended, other.ended) - max(one.began, other.began)).total_seconds()
        if seconds > 0:
            pairs.append((one.pod, other.pod, seconds))
    return pairs
