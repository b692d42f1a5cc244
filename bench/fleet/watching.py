"""When Jobs, pods and RFTJobs changed, as the API server's watches deliver it.

They are watched as tables, which are a few cells for each object.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from bench.scale.api import JOBS, NAMESPACE, PODS, RFTJOBS, Api, Json

WORKLOADS = f"/apis/kueue.x-k8s.io/v1beta2/namespaces/{NAMESPACE}/workloads"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
_CELLS = "&includeObject=None"
Cells = dict[str, str]
"""Cells of one object by the name of their column."""


@dataclass
class Times:
    """The first moment of each state by RFTJob, on the clock of ``time.monotonic``."""

    of: dict[str, dict[str, float]] = field(default_factory=dict)

    def note(self, state: str, name: str) -> None:
        """Note that an object is in a state now, unless it was before."""
        self.of.setdefault(state, {}).setdefault(name, time.monotonic())

    def forget(self, *states: str) -> None:
        """Begin anew with these states."""
        for state in states:
            self.of.pop(state, None)

    def count(self, state: str, prefix: str = "") -> int:
        """Return how many were in a state, of those whose name begins with ``prefix``."""
        return sum(name.startswith(prefix) for name in self.of.get(state, {}))

    def between(self, first: str, then: str, prefix: str = "") -> list[float]:
        """Return the seconds from one state to the other of each that was in both."""
        begun, ended = self.of.get(first, {}), self.of.get(then, {})
        both = (name for name in begun if name in ended and name.startswith(prefix))
        # Two watches race for what happens at once, so that one may seem to be before its cause.
        return [max(0.0, ended[name] - begun[name]) for name in both]

    def span(self, first: str, then: str, prefix: str = "") -> float:
        """Return the seconds from the first that was in one state until the last that was in the other."""
        begun = [at for name, at in self.of[first].items() if name.startswith(prefix)]
        return max(at for name, at in self.of[then].items() if name.startswith(prefix)) - min(begun)


def job_states(_: Cells) -> tuple[str, ...]:
    """Return the states of a child Job."""
    return ("job",)


def workload_states(cells: Cells) -> tuple[str, ...]:
    """Return the states of a Workload of Kueue."""
    return ("admitted",) if cells["Admitted"] == "True" else ()


def pod_states(cells: Cells) -> tuple[str, ...]:
    """Return the states of a pod."""
    known = {"Running": "pod runs", "Completed": "pod ended", "Error": "pod failed"}
    return (known[cells["Status"]],) if cells["Status"] in known else ()


def rftjob_states(cells: Cells) -> tuple[str, ...]:
    """Return the states of an RFTJob."""
    phase, message = cells["Phase"], cells["Message"]
    if phase in ("Succeeded", "Failed"):
        return ("status ended", "status failed") if phase == "Failed" else ("status ended",)
    if message.startswith("The trainer prepares"):
        return ("status runs",)
    return ("status failed",) if message.startswith("Attempt ") else ()


def _name(parts: int) -> Callable[[Cells], str]:
    """Return what takes the name of the RFTJob from that of a child with so many parts more."""
    return lambda cells: cells["Name"].rsplit("-", parts)[0] if parts else cells["Name"]


Watched = tuple[str, Callable[[Cells], tuple[str, ...]], Callable[[Cells], str]]
"""The path of a resource, the states that follow from an object's cells, and the name of its RFTJob."""
ALWAYS: tuple[Watched, ...] = (
    (JOBS, job_states, _name(1)),
    (PODS, pod_states, _name(2)),
    (RFTJOBS, rftjob_states, _name(0)),
)
QUEUED: tuple[Watched, ...] = (
    (WORKLOADS, workload_states, lambda cells: _name(2)(cells).removeprefix("job-")),
)


@asynccontextmanager
async def watching(api: Api, times: Times, watched: tuple[Watched, ...]) -> AsyncIterator[None]:
    """Watch these for as long as the block lasts."""
    tasks = [asyncio.create_task(_follow(api, times, *each)) for each in watched]
    ended = asyncio.gather(*tasks)
    try:
        yield
        if ended.done():  # a watch that broke makes every number after it wrong
            await ended
    finally:
        ended.cancel()
        await asyncio.gather(ended, return_exceptions=True)


async def _follow(
    api: Api,
    times: Times,
    path: str,
    states: Callable[[Cells], tuple[str, ...]],
    name: Callable[[Cells], str],
) -> None:
    # An API server ends a watch whose reader is slow, as this one is while it creates thousands of objects.
    # What changed until it is there again is noted a moment late.
    while True:
        listed = await api.call("GET", f"{path}?resourceVersion=0{_CELLS}", accept=TABLE)
        columns = [column["name"] for column in listed["columnDefinitions"]]
        _note(times, columns, listed, states, name)
        query = f"&timeoutSeconds=3600&resourceVersion={listed['metadata']['resourceVersion']}{_CELLS}"
        async for event in api.watch(path, query, TABLE):
            if event["type"] == "ERROR":
                break
            if event["type"] != "DELETED":
                _note(times, columns, event["object"], states, name)
        print(f"  the watch of {path} ended and begins again", flush=True)


def _note(
    times: Times,
    columns: list[str],
    table: Json,
    states: Callable[[Cells], tuple[str, ...]],
    name: Callable[[Cells], str],
) -> None:
    for row in table.get("rows") or []:
        cells = _cells(columns, row)
        for state in states(cells):
            times.note(state, name(cells))


def _cells(columns: list[str], row: Json) -> Cells:
    return {column: str(cell) for column, cell in zip(columns, row["cells"], strict=True)}
