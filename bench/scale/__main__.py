"""``python -m bench.scale``: starts a control plane and an operator, measures, and prints the results."""

import argparse
import asyncio
import resource
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import bench.scale
from bench.scale.api import JOBS, NAMESPACE, RFTJOBS, Api, Json, each, until
from bench.scale.audit import Audit, standing
from bench.scale.process import QUIET_SECONDS, cpu_seconds, machine, peak_mebibytes, percentile, quiet
from bench.scale.server import prepare
from bench.scale.trainers import Trainer, report, trainers, trust_of
from tests.cluster.build import server_binaries
from tests.cluster.control_plane import ControlPlane, running
from tests.cluster.layout import default_layout
from tests.integration.operator_support import Operator

SPEC: Json = {
    "model": {"name": "Qwen/Qwen2.5-7B-Instruct"},
    "dataset": {"configMap": {"name": "rows"}},
    "graders": [
        {"name": "right", "weight": 2, "numeric": {"field": "answer"}},
        {"name": "form", "regex": {"pattern": "^[0-9]+$"}},
    ],
    "resources": {"accelerator": {"name": "nvidia-l40s-48gb"}},
    "storage": {"claimTemplate": {"size": "50Gi"}},
    "stop": {"targetReward": 0.9, "patience": 5},
}


async def apply(api: Api, count: int) -> dict[str, tuple[float, float]]:
    """Create all RFTJobs concurrently. Return two times for each RFTJob: when the request to create it was
    sent, and when its child Job appeared.

    Both times are in seconds of the clock ``time.monotonic``.
    """
    sent: dict[str, float] = {}
    seen: dict[str, float] = {}

    async def look() -> None:
        async for event in api.watch(JOBS):
            if event["type"] == "ADDED":
                name = event["object"]["metadata"]["labels"]["rft.dev/job-name"]
                seen.setdefault(name, time.monotonic())
            if len(seen) == count:
                return

    async def create(name: str) -> None:
        metadata = {"name": name, "namespace": NAMESPACE}
        document = {"apiVersion": "rft.dev/v1alpha1", "kind": "RFTJob", "metadata": metadata, "spec": SPEC}
        sent[name] = time.monotonic()
        await api.call("POST", RFTJOBS, document)

    watching = asyncio.create_task(look())
    await each((f"job-{number:04}" for number in range(count)), create)
    print(f"  {count} RFTJobs created in {time.monotonic() - min(sent.values()):.1f} s", flush=True)

    async def made() -> bool:
        if not watching.done() and (failed := await _failed(api)):
            raise SystemExit(f"an RFTJob failed: {failed}")
        return watching.done()

    await until("every child Job exists", made, 900, 5)
    return {name: (sent[name], seen[name]) for name in sent}


async def _failed(api: Api) -> str:
    """Return the message of the first RFTJob in the list if this RFTJob has failed, else ""."""
    status = (await api.call("GET", f"{RFTJOBS}?limit=1"))["items"][0].get("status", {})
    return str(status.get("message")) if status.get("phase") in ("Failed", "Invalid") else ""


async def last_steps(api: Api) -> Counter[int]:
    """Count the jobs for each value of ``status.progress.step``."""
    jobs = (await api.call("GET", RFTJOBS))["items"]
    return Counter(job["status"].get("progress", {}).get("step", 0) for job in jobs)


def goal(what: str, reached: float, limit: float, unit: str) -> None:
    """Print the result ``reached`` of the measurement ``what``, and whether it is within ``limit``."""
    said = "goal reached" if reached <= limit else "GOAL MISSED"
    print(f"  {what:44}{reached:10.2f} {unit:4} goal {limit:g} {unit}: {said}", flush=True)


def figure(what: str, number: float, unit: str) -> None:
    """Print a result for which no limit is set."""
    print(f"  {what:44}{number:10.2f} {unit}", flush=True)


async def measure(plane: ControlPlane, operator: Operator, options: argparse.Namespace) -> None:
    """Measure the operator while RFTJobs are created, idle and reporting. Print the results."""
    count, audit = options.jobs, Audit(plane.audit_log)
    async with Api(plane) as api:
        await prepare(api)
        await asyncio.to_thread(operator.start)
        figure("the operator's memory before any job exists", peak_mebibytes(operator), "MiB")

        print(f"\n{count} RFTJobs applied at once", flush=True)
        began, busy = time.time(), cpu_seconds(operator)
        times = await apply(api, count)
        first = min(sent for sent, _ in times.values())
        waits = [seen - sent for sent, seen in times.values()]
        goal("until every child Job exists", max(s for _, s in times.values()) - first, 60, "s")
        figure("apply to Job, p50", statistics.median(waits), "s")
        goal("apply to Job, p99", percentile(waits, 99), 60, "s")
        everyone = await trainers(api, count)
        settled = await quiet(operator)
        figure("until the operator is idle", settled - began, "s")
        figure("processor time of the operator", cpu_seconds(operator) - busy, "s")
        show("requests per job, from apply to a running pod", audit.between(began, settled), count)

        print(f"\n{count} RFTJobs without any change for {options.idle:g} s", flush=True)
        await asyncio.sleep(options.idle)
        asked = audit.between(settled, settled + QUIET_SECONDS + options.idle)
        other = asked - standing(asked)
        minutes = (QUIET_SECONDS + options.idle) / 60
        goal("requests except watches and those for the Lease", other.total() / minutes, 0, "/min")
        for what, number in other.most_common():
            figure(f"    {what}", number / minutes, "/min")
        figure("watches and renewals of the Lease", standing(asked).total() / minutes, "/min")

        if options.rounds:
            await measure_reports(api, audit, operator, everyone, options)


async def measure_reports(
    api: Api, audit: Audit, operator: Operator, everyone: list[Trainer], options: argparse.Namespace
) -> None:
    """Measure the second part, in which trainers send reports. Print the results."""
    print(
        f"\n{len(everyone)} RFTJobs reporting every {options.every:g} s, {options.rounds} times", flush=True
    )
    trust = await trust_of(api)
    began, busy = time.time(), cpu_seconds(operator)
    writes = operator.metric("rft_status_writes_total")
    said = await report(everyone, operator.url, trust, options.every, options.rounds)
    ended = time.time()
    settled = await quiet(operator)
    count = len(said.first) + len(said.seconds)
    figure("reports a second", count / (ended - began), "/s")
    figure("ingest of each job's first report, p50", statistics.median(said.first) * 1e3, "ms")
    figure("ingest of each job's first report, p99", percentile(said.first, 99) * 1e3, "ms")
    if options.rounds > 1:
        figure("ingest of all later reports, p50", statistics.median(said.seconds) * 1e3, "ms")
        goal("ingest of all later reports, p99", percentile(said.seconds, 99) * 1e3, 250, "ms")
    written = operator.metric("rft_status_writes_total") - writes
    figure("status patches a second", written / (settled - began), "/s")
    figure("processor time of the operator", cpu_seconds(operator) - busy, "s")
    print(f"  responses by HTTP status: {dict(said.statuses)}")
    print(f"  number of jobs for each step in status.progress: {dict(await last_steps(api))}")
    show("requests per report", audit.between(began, settled), count)
    goal("peak memory of the operator", peak_mebibytes(operator), 300, "MiB")


def show(title: str, asked: Counter[str], by: int) -> None:
    """Print the request counts in ``asked``, each divided by ``by``, largest first.

    Requests that an idle operator sends too, see ``standing``, are left out.
    """
    busy = asked - standing(asked)
    figure(title, busy.total() / by, "")
    for what, number in busy.most_common():
        figure(f"    {what}", number / by, "")


@contextmanager
def started(folder: Path, workers: int) -> Iterator[tuple[ControlPlane, Operator]]:
    """Start a control plane and an operator. Both are stopped at the end of the ``with`` block."""
    with running(server_binaries(default_layout().cache), folder) as plane:
        # The Lease gets a long duration, because on a busy machine the operator renews it late.
        operator = Operator(
            plane.kubeconfig,
            NAMESPACE,
            folder / "operator.log",
            RFT_WORKERS=str(workers),
            RFT_LEASE_SECONDS="100",
            MALLOC_ARENA_MAX="2",  # the same variable as in the operator's image
        )
        try:
            yield plane, operator
        finally:
            operator.kill()


def main() -> None:
    """Read the command-line options, and run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=bench.scale.__doc__)
    parser.add_argument("--jobs", type=int, default=1000, help="number of RFTJobs")
    parser.add_argument(
        "--idle", type=float, default=60, help="seconds to measure the operator while nothing changes"
    )
    parser.add_argument("--every", type=float, default=10, help="seconds between two reports of a job")
    parser.add_argument("--rounds", type=int, default=12, help="number of reports of each job; 0: none")
    parser.add_argument("--workers", type=int, default=8, help="RFT_WORKERS of the operator")
    parser.add_argument("--log", type=Path, help="copy the operator's log to this file")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(130))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 8192)), hard))
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory(prefix="rft-bench-") as name:
        folder = Path(name)
        try:
            with started(folder, options.workers) as (plane, operator):
                asyncio.run(measure(plane, operator, options))
        finally:
            if options.log is not None and (folder / "operator.log").exists():
                options.log.write_bytes((folder / "operator.log").read_bytes())


if __name__ == "__main__":
    main()
