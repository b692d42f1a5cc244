"""Records when Jobs, pods and RFTJobs change, by watching the API server.

The watches request tables, in which each object has only a few cells.
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
"""One row of a table, which is one object: its cells by the name of the column."""


@dataclass
class Times:
    """When each RFTJob first reached each state, in seconds of the clock ``time.monotonic``.

    A method with the parameter ``prefix`` counts only RFTJobs whose names begin with ``prefix``.
    """

    of: dict[str, dict[str, float]] = field(default_factory=dict)

    def note(self, state: str, name: str) -> None:
        """Record that the RFTJob ``name`` has reached a state now, unless a time is already recorded for this
        state.
        """
        self.of.setdefault(state, {}).setdefault(name, time.monotonic())

    def forget(self, *states: str) -> None:
        """Remove all records of these states."""
        for state in states:
            self.of.pop(state, None)

    def count(self, state: str, prefix: str = "") -> int:
        """Return how many RFTJobs have reached a state."""
        return sum(name.startswith(prefix) for name in self.of.get(state, {}))

    def between(self, first: str, then: str, prefix: str = "") -> list[float]:
        """Return the seconds between two states, for each RFTJob that has reached both."""
        begun, ended = self.of.get(first, {}), self.of.get(then, {})
        both = (name for name in begun if name in ended and name.startswith(prefix))
        # Two watches may deliver simultaneous changes in the wrong order.
        return [max(0.0, ended[name] - begun[name]) for name in both]

    def span(self, first: str, then: str, prefix: str = "") -> float:
        """Return the seconds between the earliest time of state ``first`` and the latest time of state
        ``then``.
        """
        begun = [at for name, at in self.of[first].items() if name.startswith(prefix)]
        return max(at for name, at in self.of[then].items() if name.startswith(prefix)) - min(begun)


def job_states(_: Cells) -> tuple[str, ...]:
    """Return the states that a child Job has reached. ``job`` is always one of them: the Job exists."""
    return ("job",)


def workload_states(cells: Cells) -> tuple[str, ...]:
    """Return the states that a Kueue Workload has reached."""
    return ("admitted",) if cells["Admitted"] == "True" else ()


def pod_states(cells: Cells) -> tuple[str, ...]:
    """Return the states that a pod has reached."""
    known = {"Running": "pod runs", "Completed": "pod ended", "Error": "pod failed"}
    return (known[cells["Status"]],) if cells["Status"] in known else ()


def rftjob_states(cells: Cells) -> tuple[str, ...]:
    """Return the states that an RFTJob has reached."""
    phase, message = cells["Phase"], cells["Message"]
    if phase in ("Succeeded", "Failed"):
        return ("status ended", "status failed") if phase == "Failed" else ("status ended",)
    if message.startswith("The trainer prepares"):
        return ("status runs",)
    return ("status failed",) if message.startswith("Attempt ") else ()


def _name(parts: int) -> Callable[[Cells], str]:
    """Return a function that finds an RFTJob's name in the cells of one of its child objects.

    A child's name is the RFTJob's name and ``parts`` more parts, each of which begins with a dash.
    """
    return lambda cells: cells["Name"].rsplit("-", parts)[0] if parts else cells["Name"]


Watched = tuple[str, Callable[[Cells], tuple[str, ...]], Callable[[Cells], str]]
"""What a watch needs:

- the path of a resource;
- a function from an object's cells to the states that the object has reached;
- a function from an object's cells to its RFTJob's name.
"""
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
    """During the ``with`` block, run the watches in ``watched``."""
    tasks = [asyncio.create_task(_follow(api, times, *each)) for each in watched]
    ended = asyncio.gather(*tasks)
    try:
        yield
        if ended.done():  # if a watch failed, all later numbers are wrong
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
    # The API server ends a watch if the client reads slowly. This client reads slowly while it creates
    # thousands of objects. Changes before the reconnect are recorded a moment late.
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
        print(f"  the watch of {path} ended and is started again", flush=True)


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
