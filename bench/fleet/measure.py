"""The measurements of ``bench.fleet``, in the order in which they are made."""

import asyncio
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass

from bench.fleet.nodes import node
from bench.fleet.table import Figures
from bench.fleet.watching import Times
from bench.scale.api import NAMESPACE, PODS, RFTJOBS, Api, Json, each, until
from bench.scale.audit import Audit, standing
from bench.scale.process import (
    cpu_seconds,
    forget_peak,
    held_mebibytes,
    peak_mebibytes,
    quiet,
)
from bench.scale.trainers import Trainer, address, report, token_of, trust_of
from rft_operator.objects.names import QUEUE_LABEL
from tests.integration.operator_support import Operator

NODES = "/api/v1/nodes"
STUCK_SECONDS = 1800.0
_GRADERS = [
    {"name": "right", "weight": 2, "numeric": {"field": "answer"}},
    {"name": "form", "regex": {"pattern": "^[0-9]+$"}},
]
_MODELS: tuple[tuple[str, str | None], ...] = (
    ("Qwen/Qwen2.5-7B-Instruct", "nvidia-l40s-48gb"),
    ("Qwen/Qwen2.5-7B-Instruct", None),
    ("Qwen/Qwen2.5-0.5B-Instruct", None),
    ("Qwen/Qwen2.5-14B-Instruct", "nvidia-h100-80gb"),
)
"""Models and accelerators that the jobs use in turn. None: the operator chooses an accelerator."""


@dataclass
class Fleet:
    """The measured operator, with everything that the measurements need."""

    api: Api
    operator: Operator
    times: Times
    audit: Audit
    figures: Figures

    async def reached(self, what: str, state: str, count: int, prefix: str) -> None:
        """Wait until ``count`` RFTJobs, or child objects of ``count`` RFTJobs, have reached ``state``.

        Only RFTJobs whose names begin with ``prefix`` count. ``what`` is the text of the error message if
        they do not reach the state.
        """

        async def there() -> bool:
            await asyncio.to_thread(self.operator.check)
            return self.times.count(state, prefix) >= count

        await until(what, there, STUCK_SECONDS, 1)

    def effort(self) -> Callable[[str], None]:
        """Start to measure the operator's CPU time and memory.

        Return a function that adds their values since then to the table. Its argument is the label.
        """
        forget_peak(self.operator)
        busy = cpu_seconds(self.operator)

        def add(what: str) -> None:
            self.figures.add(
                f"{what}: the operator's processor time", f"{cpu_seconds(self.operator) - busy:.1f} s"
            )
            held = f"{peak_mebibytes(self.operator):.0f} MiB, {held_mebibytes(self.operator):.0f} MiB"
            self.figures.add(f"{what}: the operator's memory, highest and at the end", held)

        return add


async def make_nodes(api: Api, count: int) -> None:
    """Create the fake nodes, and wait until the scheduler can use them."""

    async def make(number: int) -> None:
        await api.call("POST", NODES, node(number))

    await each(range(count), make)

    async def usable() -> bool:
        found = (await api.call("GET", f"{NODES}?resourceVersion=0"))["items"]
        taints = itertools.chain.from_iterable(each.get("spec", {}).get("taints", []) for each in found)
        return len(found) >= count and not any(
            taint["key"].startswith("node.kubernetes.io") for taint in taints
        )

    await until("the nodes are ready", usable, 600, 5)


def rftjob(number: int, name: str, queue: str | None) -> Json:
    """Return the RFTJob with this number. Some RFTJobs name an accelerator, others do not."""
    model, accelerator = _MODELS[number % len(_MODELS)]
    metadata: Json = {"name": name, "namespace": NAMESPACE}
    if queue is not None:
        metadata["labels"] = {QUEUE_LABEL: queue}
    spec: Json = {
        "model": {"name": model},
        "dataset": {"configMap": {"name": "rows"}},
        "graders": _GRADERS,
        "storage": {"claimTemplate": {"size": "50Gi"}},
        "stop": {"targetReward": 0.9, "patience": 5},
    }
    if accelerator is not None:
        spec["resources"] = {"accelerator": {"name": accelerator}}
    return {"apiVersion": "rft.dev/v1alpha1", "kind": "RFTJob", "metadata": metadata, "spec": spec}


async def _apply(fleet: Fleet, count: int, prefix: str, queue: str | None = None) -> None:
    """Create ``count`` RFTJobs concurrently, in Kueue's ``queue`` if given.

    Their names begin with ``prefix``.
    """

    async def create(number: int) -> None:
        name = f"{prefix}{number:05}"
        fleet.times.note("applied", name)
        await fleet.api.call("POST", RFTJOBS, rftjob(number, name, queue))

    began = time.monotonic()
    await each(range(count), create)
    print(f"  {count} RFTJobs created in {time.monotonic() - began:.1f} s", flush=True)


async def measure_start(fleet: Fleet, count: int) -> None:
    """Create many RFTJobs concurrently, and measure until all their pods run."""
    print(f"\n{count} RFTJobs applied at once", flush=True)
    figures, times, prefix = fleet.figures, fleet.times, "job-"
    began, effort = time.time(), fleet.effort()
    await _apply(fleet, count, prefix)
    await fleet.reached("every child Job exists", "job", count, prefix)
    jobs = times.span("applied", "job", prefix)
    figures.add("until every child Job exists", f"{jobs:.1f} s, {1000 * jobs / count:.1f} s for each 1,000")
    figures.seconds("apply to Job", times.between("applied", "job", prefix))
    await fleet.reached("every pod runs", "pod runs", count, prefix)
    await fleet.reached("every status says so", "status runs", count, prefix)
    figures.add(
        "until every pod runs and every RFTJob's status says so",
        f"{times.span('applied', 'status runs', prefix):.1f} s",
    )
    figures.seconds(
        "from a running pod to the RFTJob's condition", times.between("pod runs", "status runs", prefix)
    )
    settled = await quiet(fleet.operator)
    figures.requests(
        "requests per job, from apply to a running pod", fleet.audit.between(began, settled), count
    )
    effort("start")


async def measure_rest(fleet: Fleet, seconds: float) -> None:
    """Measure the operator for ``seconds`` seconds while no object changes."""
    print(f"\nno changes for {seconds:g} s", flush=True)
    began = time.time()
    await asyncio.sleep(seconds)
    asked, minutes = fleet.audit.between(began, began + seconds), seconds / 60
    fleet.figures.requests("requests a minute at rest, except watches and the Lease", asked, minutes)
    fleet.figures.add(
        "watch requests and requests for the Lease, per minute", f"{standing(asked).total() / minutes:.1f}"
    )


async def measure_reports(fleet: Fleet, count: int, every: float, rounds: int) -> None:
    """Measure the operator while ``count`` trainers each send ``rounds`` reports, ``every`` seconds apart."""
    print(f"\n{count} RFTJobs report every {every:g} s, {rounds} times", flush=True)
    pods = (await fleet.api.call("GET", f"{PODS}?limit={count}"))["items"]
    everyone = [Trainer(pod, address(number)) for number, pod in enumerate(pods)]

    async def prepare(trainer: Trainer) -> None:
        trainer.token = await token_of(fleet.api, trainer.pod)

    await each(everyone, prepare)
    trust = await trust_of(fleet.api)
    began, effort = time.time(), fleet.effort()
    said = await report(everyone, fleet.operator.url, trust, every, rounds)
    settled = await quiet(fleet.operator)
    figures = fleet.figures
    sent = len(said.first) + len(said.seconds)
    answers = ", ".join(f"{number} with {status}" for status, number in said.statuses.items())
    figures.add("number of reports, and the operator's answers", f"{sent}: {answers}")
    figures.seconds("ingest of each job's first report", said.first)
    figures.seconds("ingest of all later reports", said.seconds)
    figures.requests("requests per report", fleet.audit.between(began, settled), sent)
    steps = [job.get("status", {}).get("progress", {}).get("step", 0) for job in await _of(fleet, everyone)]
    late = sum(step != rounds for step in steps)
    figures.add("jobs whose status never got the last report", str(late))
    effort("reports")


async def _of(fleet: Fleet, everyone: list[Trainer]) -> list[Json]:
    found: list[Json] = []

    async def get(trainer: Trainer) -> None:
        found.append(await fleet.api.call("GET", f"{RFTJOBS}/{trainer.job}"))

    await each(everyone, get)
    return found


async def measure_restart(fleet: Fleet, count: int) -> None:
    """Measure a restart of the operator while all RFTJobs exist."""
    print("\nthe operator is restarted", flush=True)
    operator, figures = fleet.operator, fleet.figures
    await asyncio.to_thread(operator.stop)
    began = time.time()
    await asyncio.to_thread(operator.start)
    figures.add("restart: until the ingest answers", f"{time.time() - began:.1f} s")
    settled = await quiet(operator)
    figures.add(f"restart: until all {count} RFTJobs are reconciled", f"{settled - began:.1f} s")
    figures.add("restart: the operator's processor time", f"{cpu_seconds(operator):.1f} s")
    held = f"{peak_mebibytes(operator):.0f} MiB, {held_mebibytes(operator):.0f} MiB"
    figures.add("restart: the operator's memory, highest and at the end", held)
    figures.requests("restart: requests per job", fleet.audit.between(began, settled), count)


async def measure_ends(fleet: Fleet, count: int, seconds: float) -> None:
    """Measure the operator while the pods of ``count`` RFTJobs end. Some succeed and some fail.

    All pods end within ``seconds`` seconds. The Job controller replaces failed pods.
    """
    print(f"\nthe pods of {count} RFTJobs end within {seconds:.0f} s", flush=True)
    figures, times, prefix = fleet.figures, fleet.times, "job-"
    began, effort = time.time(), fleet.effort()
    await fleet.reached("every RFTJob has ended", "status ended", count, prefix)
    settled = await quiet(fleet.operator)
    figures.add("pods that failed", str(times.count("pod failed", prefix)))
    figures.seconds(
        "from a pod's failure to the RFTJob's condition", times.between("pod failed", "status failed", prefix)
    )
    figures.seconds(
        "from a pod's end to the RFTJob's last phase, by way of the Job controller",
        times.between("pod ended", "status ended", prefix),
    )
    figures.requests(
        "requests per job, from a running pod to the end", fleet.audit.between(began, settled), count
    )
    effort("ends")


async def measure_queued(fleet: Fleet, count: int, queue: str) -> None:
    """Create ``count`` RFTJobs in the Kueue queue ``queue``, and measure until all of them have ended."""
    print(f"\n{count} RFTJobs applied at once into a Kueue queue", flush=True)
    figures, times, prefix = fleet.figures, fleet.times, "queued-"
    began, effort = time.time(), fleet.effort()
    await _apply(fleet, count, prefix, queue)
    await fleet.reached("every child Job is admitted", "admitted", count, prefix)
    figures.seconds("with Kueue: apply to Job", times.between("applied", "job", prefix))
    figures.seconds("with Kueue: Job to admitted", times.between("job", "admitted", prefix))
    took = times.span("applied", "admitted", prefix)
    figures.add(
        "with Kueue: from the first apply to the last admission", f"{took:.1f} s, {count / took:.1f} a second"
    )
    own = times.span("job", "admitted", prefix)
    figures.add("with Kueue: admissions a second, from the first Job on", f"{count / own:.1f}")
    await fleet.reached("every queued RFTJob has ended", "status ended", count, prefix)
    settled = await quiet(fleet.operator)
    figures.seconds(
        "with Kueue: from a running pod to its end", times.between("pod runs", "pod ended", prefix)
    )
    figures.seconds(
        "with Kueue: from a pod's end to the RFTJob's last phase",
        times.between("pod ended", "status ended", prefix),
    )
    figures.requests(
        "with Kueue: requests per job, from apply to end", fleet.audit.between(began, settled), count
    )
    effort("with Kueue")


def summary(figures: Figures) -> None:
    """Add published numbers of other systems to the table, for comparison."""
    figures.add("published: KubeRay, 1,000 RayJobs", "258 s")
    figures.add("published: Kueue, admissions a second", "42")
