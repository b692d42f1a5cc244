"""The operator with a thousand RFTJobs: applied at once, idle, and reporting. `make bench-operator`.

A real API server with its etcd and controllers is started for it, and the operator as a process of its own.
There is no node, so no container runs: the bench says what a kubelet would, and reports as trainers do, each
with a token bound to its pod, from an address of its own, over a new connection every time. What the operator
asked the API server is counted from the server's audit log. All of it ends, and the folder goes, with the
bench, however that ends.
"""

import argparse
import asyncio
import json
import os
import platform
import resource
import signal
import ssl
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from rft_api.export.crd import crd
from rft_api.report import REPORT_PATH, TOKEN_AUDIENCE
from tests.cluster.build import kubernetes_binaries
from tests.cluster.control_plane import ControlPlane, running
from tests.cluster.layout import default_layout
from tests.integration.operator_support import Operator

T = TypeVar("T")
Json = dict[str, Any]
NAMESPACE = "bench"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
RFTJOBS = f"/apis/rft.dev/v1alpha1/namespaces/{NAMESPACE}/rftjobs"
JOBS = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
CONFIG_MAPS = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
TOKENS = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default/token"
AT_ONCE = 64
"""Requests of the bench itself that are under way at a time."""
QUIET_SECONDS = 6.0
"""How long the operator has to ask for nothing before it is called idle."""
AGENTS = ("rft-operator", "kopf/")
"""How the operator's requests call themselves."""
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


class Api:
    """The API server as an administrator sees it."""

    def __init__(self, plane: ControlPlane) -> None:
        """Read the credentials of ``plane``'s kubeconfig."""
        document = json.loads(plane.kubeconfig.read_text())
        self._url = plane.url
        user = document["users"][0]["user"]
        self._tls = ssl.create_default_context(
            cafile=document["clusters"][0]["cluster"]["certificate-authority"]
        )
        self._tls.load_cert_chain(user["client-certificate"], user["client-key"])

    async def __aenter__(self) -> "Api":
        """Open the connections."""
        connector = aiohttp.TCPConnector(limit=AT_ONCE + 1, ssl=self._tls)
        headers = {"User-Agent": "rft-bench"}
        self._session = aiohttp.ClientSession(self._url, connector=connector, headers=headers)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close them."""
        await self._session.close()

    async def call(self, method: str, path: str, body: Json | None = None) -> Json:
        """Send one request; a PATCH is a merge patch. Raises SystemExit where the server refuses."""
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        async with self._session.request(
            method, path, data=None if body is None else json.dumps(body), headers={"Content-Type": kind}
        ) as answer:
            said = await answer.json()
            if answer.status >= 300:
                raise SystemExit(f"{method} {path}: {answer.status} {said.get('message')}")
            return dict(said)

    async def find(self, path: str) -> Json | None:
        """Return an object, ``None`` where there is none."""
        async with self._session.get(path) as answer:
            return dict(await answer.json()) if answer.status == 200 else None

    async def watch(self, path: str) -> AsyncIterator[Json]:
        """Yield the events of a watch."""
        timeout = aiohttp.ClientTimeout(total=None)
        async with self._session.get(f"{path}?watch=true", timeout=timeout) as answer:
            async for line in answer.content:
                yield json.loads(line)


@dataclass
class Trainer:
    """What stands for a trainer: a pod that is said to run, and its token."""

    pod: Json
    address: str
    token: str = ""
    sequence: int = 0

    @property
    def job(self) -> str:
        """Name of its RFTJob."""
        return str(self.pod["metadata"]["labels"]["rft.dev/job-name"])

    def report(self) -> bytes:
        """Return the next report, as large as one of a run that is on its way."""
        self.sequence += 1
        step = self.sequence
        points = [{"step": i + 1, "reward": round(0.3 + i / 1000, 4)} for i in range(min(step, 50))]
        phases = {"rollout": 5.1, "grade": 0.2, "update": 4.3, "publish": 0.4}
        run = {
            "progress": {
                "step": step, "totalSteps": 1000, "totalStepsEstimated": False, "epoch": 1,
                "percent": step / 10, "etaSeconds": 10.0 * (1000 - step), "stage": "training",
                "updatedAt": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            },
            "reward": {
                "latest": points[-1]["reward"], "best": points[-1]["reward"], "baseline": 0.3,
                "graders": {"right": 0.31, "form": 0.72}, "history": points,
            },
            "metrics": {
                "loss": 0.01, "kl": 0.002, "entropy": 0.9, "clipFraction": 0.01, "gradNorm": 0.4,
                "tokensPerSecond": 2100.0, "stepSeconds": 10.0, "phases": phases,
            },
            "usage": {"gpuSeconds": 10.0 * step, "promptTokens": 900 * step, "completionTokens": 9000 * step},
        }  # fmt: skip
        attempt = self.pod["metadata"]["uid"]
        return json.dumps({"version": 1, "attempt": attempt, "sequence": step, "run": run}).encode()


@dataclass
class Reported:
    """What became of the reports."""

    first: list[float] = field(default_factory=list)
    """Of each job's first report. Its token has never been seen: the API server has to review it."""
    seconds: list[float] = field(default_factory=list)
    """Of all others."""
    statuses: Counter[int] = field(default_factory=Counter)


class Audit:
    """The requests of the operator in the API server's audit log."""

    def __init__(self, log: Path) -> None:
        """Read ``log``."""
        self._log = log

    def between(self, since: float, until: float) -> Counter[str]:
        """Return what was asked between two moments of the wall clock, counted by verb and resource."""
        found: Counter[str] = Counter()
        for event in self._events():
            moment = datetime.fromisoformat(event["requestReceivedTimestamp"]).timestamp()
            if since <= moment < until:
                reference = event.get("objectRef", {})
                what = "/".join(filter(None, (reference.get("resource"), reference.get("subresource"))))
                found[f"{event['verb']} {what}"] += 1
        return found

    def _events(self) -> Iterator[Json]:
        with self._log.open("rb") as log:
            for line in log:
                # The last line may not be whole yet.
                if any(f'"{agent}'.encode() in line for agent in AGENTS) and line.endswith(b"\n"):
                    event = json.loads(line)
                    if event["userAgent"].startswith(AGENTS) and event["stage"] != "ResponseStarted":
                        yield event


def standing(asked: Counter[str]) -> Counter[str]:
    """Return what an operator asks while nothing happens: it watches, and keeps its Lease."""
    return Counter({what: n for what, n in asked.items() if what.startswith("watch ") or "leases" in what})


async def each(items: Iterable[T], act: Callable[[T], Awaitable[None]]) -> None:
    """Do ``act`` for all, a bounded number at a time."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(item: T) -> None:
        async with room:
            await act(item)

    await asyncio.gather(*map(one, items))


async def until(
    what: str, holds: Callable[[], Awaitable[bool]], seconds: float = 600.0, poll: float = 0.5
) -> None:
    """Wait; raises SystemExit after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not await holds():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not within {seconds:.0f} s")
        await asyncio.sleep(poll)


async def prepare(api: Api) -> None:
    """Make the namespace and the CRD."""
    await api.call("POST", CRDS, crd())
    await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})

    async def ready() -> bool:
        account = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default"
        return await api.find(RFTJOBS) is not None and await api.find(account) is not None

    await until("the namespace is ready", ready)


async def apply(api: Api, count: int) -> dict[str, tuple[float, float]]:
    """Create all RFTJobs at once; return when each was sent, and when its Job was seen."""
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
    """Return what the first RFTJob of the list says if it failed."""
    status = (await api.call("GET", f"{RFTJOBS}?limit=1"))["items"][0].get("status", {})
    return str(status.get("message")) if status.get("phase") == "Failed" else ""


async def quiet(operator: Operator) -> float:
    """Wait until the operator decides nothing any more; return when that began, in wall-clock time."""
    before, since = -1.0, time.time()
    while time.time() - since < QUIET_SECONDS:
        await asyncio.sleep(1)
        now = await asyncio.to_thread(operator.metric, "rft_reconciles_total")
        if now != before:
            before, since = now, time.time()
    return since


async def trainers(api: Api, count: int) -> list[Trainer]:
    """Return a running trainer for each RFTJob."""

    async def there() -> bool:
        return len((await api.call("GET", PODS))["items"]) >= count

    await until("the Job controller makes the pods", there)
    pods = (await api.call("GET", PODS))["items"]
    found = [Trainer(pod, f"127.1.{n // 250}.{n % 250 + 1}") for n, pod in enumerate(pods)]

    async def start(trainer: Trainer) -> None:
        metadata = trainer.pod["metadata"]
        state = {"name": "trainer", "image": "x", "imageID": "x", "ready": True, "restartCount": 0}
        state["state"] = {"running": {"startedAt": metadata["creationTimestamp"]}}
        status = {"phase": "Running", "containerStatuses": [state]}
        await api.call("PATCH", f"{PODS}/{metadata['name']}/status", {"status": status})
        bound = {"kind": "Pod", "apiVersion": "v1", "name": metadata["name"], "uid": metadata["uid"]}
        spec = {"audiences": [TOKEN_AUDIENCE], "expirationSeconds": 3600, "boundObjectRef": bound}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        trainer.token = (await api.call("POST", TOKENS, body))["status"]["token"]

    await each(found, start)
    return found


async def push(trainer: Trainer, url: str, trust: ssl.SSLContext) -> int:
    """Send one report from the trainer's own address; return the HTTP status."""
    connector = aiohttp.TCPConnector(ssl=trust, local_addr=(trainer.address, 0), force_close=True)
    headers = {"Authorization": f"Bearer {trainer.token}", "Content-Type": "application/json"}
    async with (
        aiohttp.ClientSession(connector=connector, headers=headers) as session,
        session.post(f"{url}{REPORT_PATH}", data=trainer.report()) as answer,
    ):
        await answer.read()
        return answer.status


async def report(
    everyone: Sequence[Trainer], url: str, trust: ssl.SSLContext, every: float, rounds: int
) -> Reported:
    """Let every trainer report every ``every`` seconds, evenly spread.

    The time of each counts from when it was due: waiting in line is part of it.
    """
    said = Reported()
    started = time.monotonic()

    async def one(number: int, trainer: Trainer) -> None:
        for turn in range(rounds):
            due = started + every * (turn + number / len(everyone))
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            said.statuses[await push(trainer, url, trust)] += 1
            (said.seconds if turn else said.first).append(time.monotonic() - due)

    await asyncio.gather(*(one(number, trainer) for number, trainer in enumerate(everyone)))
    return said


async def trust_of(api: Api) -> ssl.SSLContext:
    """Return what the trainers trust."""
    found = (await api.call("GET", CONFIG_MAPS))["items"]
    bundle = next(o["data"]["ca.crt"] for o in found if o["metadata"]["name"].endswith("-ca"))
    return ssl.create_default_context(cadata=bundle)


async def last_steps(api: Api) -> Counter[int]:
    """Return how many jobs' status tells of which step."""
    jobs = (await api.call("GET", RFTJOBS))["items"]
    return Counter(job["status"].get("progress", {}).get("step", 0) for job in jobs)


def goal(what: str, reached: float, limit: float, unit: str) -> None:
    """Print a number beside its goal."""
    said = "goal reached" if reached <= limit else "GOAL MISSED"
    print(f"  {what:44}{reached:10.2f} {unit:4} goal {limit:g} {unit}: {said}", flush=True)


def figure(what: str, number: float, unit: str) -> None:
    """Print a number that has no goal."""
    print(f"  {what:44}{number:10.2f} {unit}", flush=True)


def peak_mebibytes(operator: Operator) -> float:
    """Return the most memory that the operator held so far."""
    lines = Path(f"/proc/{operator.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def cpu_seconds(operator: Operator) -> float:
    """Return the processor time of the operator so far."""
    fields = Path(f"/proc/{operator.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(plane: ControlPlane, operator: Operator, options: argparse.Namespace) -> None:
    """Measure and print."""
    count, audit = options.jobs, Audit(plane.audit_log)
    async with Api(plane) as api:
        await prepare(api)
        await asyncio.to_thread(operator.start)
        figure("the operator before there is any job holds", peak_mebibytes(operator), "MiB")

        print(f"\n{count} RFTJobs applied at once", flush=True)
        began, busy = time.time(), cpu_seconds(operator)
        times = await apply(api, count)
        first = min(sent for sent, _ in times.values())
        waits = [seen - sent for sent, seen in times.values()]
        goal("until every child Job exists", max(s for _, s in times.values()) - first, 60, "s")
        figure("apply to Job, p50", statistics.median(waits), "s")
        goal("apply to Job, p99", _p99(waits), 60, "s")
        everyone = await trainers(api, count)
        settled = await quiet(operator)
        figure("all settled after", settled - began, "s")
        figure("processor time of the operator", cpu_seconds(operator) - busy, "s")
        show("requests from apply to a running pod, per job", audit.between(began, settled), count)

        print(f"\n{count} RFTJobs at rest for {options.idle:g} s", flush=True)
        await asyncio.sleep(options.idle)
        asked = audit.between(settled, settled + QUIET_SECONDS + options.idle)
        other = asked - standing(asked)
        minutes = (QUIET_SECONDS + options.idle) / 60
        goal("requests beside watches and the Lease", other.total() / minutes, 0, "/min")
        for what, number in other.most_common():
            figure(f"    {what}", number / minutes, "/min")
        figure("watches and renewals of the Lease", standing(asked).total() / minutes, "/min")

        await measure_reports(api, audit, operator, everyone, options)


async def measure_reports(
    api: Api, audit: Audit, operator: Operator, everyone: list[Trainer], options: argparse.Namespace
) -> None:
    """Measure and print the second half: trainers that report."""
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
    figure("ingest of each job's first report, p99", _p99(said.first) * 1e3, "ms")
    figure("ingest of the others, p50", statistics.median(said.seconds) * 1e3, "ms")
    goal("ingest of the others, p99", _p99(said.seconds) * 1e3, 250, "ms")
    written = operator.metric("rft_status_writes_total") - writes
    figure("status patches a second", written / (settled - began), "/s")
    figure("processor time of the operator", cpu_seconds(operator) - busy, "s")
    print(f"  answers by HTTP status: {dict(said.statuses)}")
    print(f"  jobs by the step in their status: {dict(await last_steps(api))}")
    show("requests per report", audit.between(began, settled), count)
    goal("the operator held at most", peak_mebibytes(operator), 300, "MiB")


def show(title: str, asked: Counter[str], by: int) -> None:
    """Print requests divided by ``by``, the most frequent first."""
    busy = asked - standing(asked)
    figure(title, busy.total() / by, "")
    for what, number in busy.most_common():
        figure(f"    {what}", number / by, "")


def _p99(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


def machine() -> str:
    """Return what is measured on."""
    found = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    cpu = found[0].split(":")[1].strip() if found else platform.machine()
    load, nice = os.getloadavg()[0], os.nice(0)
    busy = "; BUSY OR NICED, so times are upper bounds" if load > 0.5 or nice > 0 else ""
    where = f"{cpu}, {os.cpu_count()} cores, shared with the API server, etcd, the controllers and the bench"
    return f"{where}; Python {platform.python_version()}, load {load:.1f}, niceness {nice}{busy}"


@contextmanager
def started(folder: Path, workers: int) -> Iterator[tuple[ControlPlane, Operator]]:
    """Run a control plane, and make an operator that is ended with it."""
    with running(kubernetes_binaries(default_layout().cache), folder) as plane:
        # A machine that does other things as well is slow to renew a Lease, and that is not what is measured.
        settings = {"RFT_WORKERS": str(workers), "RFT_LEASE_SECONDS": "100"}
        settings["MALLOC_ARENA_MAX"] = "2"  # as in the operator's image
        operator = Operator(plane.kubeconfig, NAMESPACE, folder / "operator.log", **settings)
        try:
            yield plane, operator
        finally:
            operator.kill()


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000, help="how many RFTJobs")
    parser.add_argument("--idle", type=float, default=60, help="seconds to watch them at rest")
    parser.add_argument("--every", type=float, default=10, help="seconds from one report to the next")
    parser.add_argument("--rounds", type=int, default=12, help="reports of each job")
    parser.add_argument("--workers", type=int, default=8, help="RFT_WORKERS of the operator")
    parser.add_argument("--log", type=Path, help="keep the operator's log here")
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
