"""Metrics of RFTJobs, from the statuses that the operator reads and writes.

The number of time series is limited. Each label has a limited number of values. Only running RFTJobs have
time series of their own, and only ``MAX_JOB_SERIES`` of them.

Counters count only the changes that this process observes. When this process first reads a status, it counts
nothing in it, because the previous process has counted it.
"""

import threading
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, get_args

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rft_api.conditions import COMPLETED_BECAUSE, TERMINAL_PHASES, Phase, Reason
from rft_api.metrics import MAX_JOB_SERIES, METRICS
from rft_operator.clock import parse
from rft_operator.queue import Key

WAITING = ("Pending", "Queued")
STARTED = ("Starting", "Running")
REASONS = {value for name, value in vars(Reason).items() if name.isupper()}
OTHER = "Other"
"""Value of the label ``reason`` for a reason that this version does not know."""
FAILED_BECAUSE = (
    Reason.CONFIGURATION,
    Reason.DATA,
    Reason.USER_CODE,
    Reason.OUT_OF_MEMORY,
    Reason.SAMPLER_MISMATCH,
    Reason.ACTIVE_DEADLINE,
    Reason.BACKOFF_LIMIT,
    Reason.EVICTED,
    Reason.INTERRUPTED,
    Reason.VOLUME,
    Reason.TRAINER_FAILED,
)
"""Reasons of failures whose time series exist from the start of the process, with the value 0. So an alert
sees even the first failure as an increase."""


class JobFigures(NamedTuple):
    """The values of one RFTJob from which the metrics are computed."""

    version: int
    phase: str = ""
    reason: str = ""
    stalled: bool = False
    waits_since: float | None = None
    """When the job began to wait, in seconds since 1970: the last transition of its condition
    ``Reconciling``, or the creation of the RFTJob if it does not have this condition."""
    step: int = 0
    reward: float | None = None
    gpu_seconds: float = 0.0


def figures(document: Mapping[str, Any]) -> JobFigures:
    """Return the values of an RFTJob from which the metrics are computed. Fields of the status may be missing
    or unknown.
    """
    metadata, status = document["metadata"], document.get("status") or {}
    conditions = {c.get("type"): c for c in status.get("conditions") or []}
    since = parse((conditions.get("Reconciling") or {}).get("lastTransitionTime") or "") or parse(
        metadata.get("creationTimestamp") or ""
    )
    version = str(metadata.get("resourceVersion", ""))
    return JobFigures(
        version=int(version) if version.isdigit() else 0,
        phase=status.get("phase") or "",
        reason=(conditions.get("Ready") or {}).get("reason") or "",
        stalled=(conditions.get("Stalled") or {}).get("status") == "True"
        and status.get("phase") not in TERMINAL_PHASES,
        waits_since=since.timestamp() if since is not None else None,
        step=(status.get("progress") or {}).get("step") or 0,
        reward=(status.get("reward") or {}).get("latest"),
        gpu_seconds=(status.get("usage") or {}).get("gpuSeconds") or 0.0,
    )


class JobMetrics(Collector):
    """A Prometheus collector for the metrics of RFTJobs. Thread-safe."""

    def __init__(self, registry: CollectorRegistry, now: Callable[[], float] = time.time) -> None:
        """``now`` is a function that returns the time in seconds since 1970."""
        self._now = now
        self._lock = threading.Lock()
        self._jobs: dict[Key, JobFigures] = {}
        finished, queue, gpu = (
            METRICS[name]
            for name in ("rft_jobs_finished_total", "rft_job_queue_seconds", "rft_gpu_seconds_total")
        )
        self._finished = Counter(finished.name, finished.help, finished.labels, registry=registry)
        self._queue = Histogram(queue.name, queue.help, registry=registry, buckets=queue.buckets)
        self._gpu = Counter(gpu.name, gpu.help, gpu.labels, registry=registry)
        for phase, reasons in (
            ("Succeeded", tuple(COMPLETED_BECAUSE)),
            ("Failed", FAILED_BECAUSE),
            ("Cancelled", (Reason.CANCELLED,)),
        ):
            for reason in reasons:
                self._finished.labels(phase, reason)
        registry.register(self)

    def observe(self, key: Key, document: Mapping[str, Any]) -> None:
        """Store the values of an RFTJob, and count what has changed. An older version than the stored one is
        ignored.
        """
        new = figures(document)
        with self._lock:
            old = self._jobs.get(key)
            if old is not None and new.version < old.version:
                return
            self._jobs[key] = new
        if old is None and new.phase:
            return  # written before this process started: only later changes are counted
        self._count(key, old or JobFigures(0), new)

    def forget(self, key: Key) -> None:
        """Forget an RFTJob that was deleted."""
        with self._lock:
            self._jobs.pop(key, None)

    def _count(self, key: Key, old: JobFigures, new: JobFigures) -> None:
        if new.phase != old.phase and new.phase in TERMINAL_PHASES:
            self._finished.labels(new.phase, new.reason if new.reason in REASONS else OTHER).inc()
        if old.phase in WAITING and new.phase in STARTED and old.waits_since is not None:
            self._queue.observe(max(0.0, self._now() - old.waits_since))
        if new.gpu_seconds > old.gpu_seconds:
            self._gpu.labels(key[0]).inc(new.gpu_seconds - old.gpu_seconds)

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges of the RFTJobs that are known now."""
        with self._lock:
            jobs = dict(self._jobs)
        now = self._now()
        namespaces = sorted({namespace for namespace, _ in jobs})
        phases = Tally((namespace, job.phase or "Pending") for (namespace, _), job in jobs.items())
        stalled = Tally(namespace for (namespace, _), job in jobs.items() if job.stalled)
        waits = dict.fromkeys(namespaces, 0.0)
        for (namespace, _), job in jobs.items():
            if (job.phase in WAITING or not job.phase) and job.waits_since is not None:
                waits[namespace] = max(waits[namespace], now - job.waits_since)
        running = sorted(key for key, job in jobs.items() if job.phase == "Running")[:MAX_JOB_SERIES]
        by_phase: dict[tuple[str, ...], float] = {
            (n, phase): phases[n, phase] for n in namespaces for phase in get_args(Phase)
        }
        yield _gauge("rft_jobs", by_phase)
        yield _gauge("rft_jobs_stalled", {(n,): stalled[n] for n in namespaces})
        yield _gauge("rft_jobs_longest_wait_seconds", {(n,): wait for n, wait in waits.items()})
        yield _gauge("rft_job_step", {key: jobs[key].step for key in running})
        rewards = {key: jobs[key].reward for key in running}
        yield _gauge("rft_job_reward", {key: value for key, value in rewards.items() if value is not None})


def _gauge(name: str, values: Mapping[tuple[str, ...], float]) -> Metric:
    family = GaugeMetricFamily(name, METRICS[name].help, labels=METRICS[name].labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family
