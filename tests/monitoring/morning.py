"""An invented morning of two teams that share 16 GPUs, for the picture of the dashboard.

The operator's own metric objects count what happens. ``Morning.scrapes`` yields their text at every scrape,
as a Prometheus would read it that scrapes them every 30 s for seven hours.

All is invented: the jobs, their rewards, an API server that does not answer for two minutes, and a pod that
sends too many reports. The numbers are the same in every run.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.registry import Collector

from rft_api.conditions import Reason
from rft_operator import metrics
from rft_operator.job_metrics import JobMetrics
from tests.monitoring.shown import show

BEGIN = datetime(2026, 11, 26, 7, tzinfo=UTC)
HOURS = 7
SHOWN_HOURS = 6
"""The picture shows the last six of the ``HOURS``.

Some queries look back one hour (``[1h]``). The first hour has the samples that they need at the begin of the
picture.
"""
SCRAPE_SECONDS = 30
"""Seconds between two scrapes, as ``metrics.serviceMonitor.interval`` of the chart."""
GPUS = 16
PULL_MINUTES = 3.0
"""Minutes in phase Starting: the image is pulled, and the model is loaded."""
TTL_MINUTES = 120.0
"""An RFTJob is deleted this long after its end."""
STEP_SECONDS = 40.0
REPORT_SECONDS = 10.0
WATCH_SECONDS = 180.0
"""The API server ends a watch after this time, and the operator connects it again."""
SILENT = (255.0, 257.0)
"""Begin and end of the time in which the API server does not answer, in minutes since ``BEGIN``."""
FLOOD = (192.0, 198.0)
"""Begin and end of the time in which a pod sends too many reports, in minutes since ``BEGIN``."""


@dataclass
class InventedJob:
    """An RFTJob of the invented morning. Points in time are in minutes since ``BEGIN``."""

    namespace: str
    name: str
    created: float
    gpus: int
    minutes: float
    """Minutes in phase Running. 0: the job fails while it starts."""
    first: float = 0.3
    last: float = 0.8
    """Mean reward of the first step, and the mean reward that the steps approach."""
    phase: str = "Succeeded"
    reason: str = Reason.COMPLETED
    stalls: tuple[float, float] = (0.0, 0.0)
    """Begin and end of the time in which the job makes no steps. If they are equal, it never stalls."""
    started: float | None = None
    trained: float = 0.0
    """For how many minutes the job has made steps so far."""
    reward: float | None = None

    @property
    def begins(self) -> float:
        """When the phase Running begins."""
        return math.inf if self.started is None else self.started + PULL_MINUTES

    @property
    def ends(self) -> float:
        """When the job ends."""
        return self.begins + self.minutes

    def holds_gpus(self, now: float) -> bool:
        """Return whether the job has its GPUs at the minute ``now``."""
        return self.started is not None and now < self.ends

    def runs(self, now: float) -> bool:
        """Return whether the job is in phase Running at the minute ``now``."""
        return self.begins <= now < self.ends

    def is_stalled(self, now: float) -> bool:
        """Return whether the job makes no steps at the minute ``now``."""
        return self.stalls[0] <= now < self.stalls[1]


def invented_jobs() -> list[InventedJob]:
    """Return the jobs of the invented morning, in the order of their creation."""
    return [
        InventedJob("search", "rank", 0, 8, 150, 0.31, 0.74),
        InventedJob("chat", "triage", 5, 2, 95, 0.42, 0.83),
        InventedJob("chat", "tone", 20, 4, 120, 0.25, 0.66),
        InventedJob("search", "tags", 70, 4, 130, 0.18, 0.57),
        InventedJob("chat", "sql", 85, 8, 120, 0.35, 0.93, reason=Reason.TARGET_REWARD),
        InventedJob("search", "rank-2", 100, 8, 100, 0.22, 0.51),
        InventedJob("chat", "tone-2", 125, 1, 0, phase="Failed", reason=Reason.DATA),
        InventedJob("chat", "tone-3", 150, 1, 0, phase="Failed", reason=Reason.DATA),
        InventedJob("search", "big", 175, 4, 28, 0.3, 0.36, "Failed", Reason.OUT_OF_MEMORY),
        InventedJob("chat", "tone-4", 200, 2, 120, 0.27, 0.71, stalls=(285, 312)),
        InventedJob("chat", "triage-2", 240, 8, 300, 0.44, 0.9),
        InventedJob("search", "tags-2", 300, 4, 300, 0.33, 0.64),
        InventedJob("search", "probe", 318, 2, 35, 0.2, 0.24, "Cancelled", Reason.CANCELLED),
        InventedJob("search", "rank-3", 345, 8, 100),
    ]


class _At(Collector):
    """The metrics of a registry, with a time at every sample."""

    def __init__(self, registry: CollectorRegistry, seconds: float) -> None:
        self._registry, self._seconds = registry, seconds

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            # Prometheus has no use for the times at which the counters were made.
            samples = [each for each in metric.samples if not each.name.endswith("_created")]
            metric.samples = [each._replace(timestamp=self._seconds) for each in samples]
            yield metric


class Morning:
    """Changes the operator's metrics as the events of the invented morning would."""

    def __init__(self) -> None:
        self._jobs = invented_jobs()
        self._random = Random(7)
        self._minute = 0.0
        self._registry = CollectorRegistry()
        self._job_metrics = JobMetrics(self._registry, now=self._seconds)
        for collector in (
            metrics.RECONCILES,
            metrics.RECONCILE_SECONDS,
            metrics.API_REQUESTS,
            metrics.REPORTS,
            metrics.LEASE_HELD,
            metrics.WATCH_SILENCE,
        ):
            self._registry.register(collector)

    def scrapes(self) -> Iterator[bytes]:
        """Yield the metrics at each scrape, in the OpenMetrics format and with times."""
        for number in range(HOURS * 3600 // SCRAPE_SECONDS + 1):
            self._minute = number * SCRAPE_SECONDS / 60
            for job in self._jobs:
                if job.created <= self._minute:
                    self._go_on(job)
            self._operator()
            yield generate_latest(_At(self._registry, self._seconds())).removesuffix(b"# EOF\n")

    def _seconds(self) -> float:
        """Return the invented time in seconds since 1970."""
        return BEGIN.timestamp() + self._minute * 60

    def _during(self, span: tuple[float, float]) -> bool:
        return span[0] <= self._minute < span[1]

    def _go_on(self, job: InventedJob) -> None:
        """Update a job from the previous scrape to this one, and show its status to the metrics."""
        now, key = self._minute, (job.namespace, job.name)
        taken = sum(each.gpus for each in self._jobs if each.holds_gpus(now))
        if job.started is None and now > job.created + 0.5 and taken + job.gpus <= GPUS:
            job.started = now
        if now > job.ends + TTL_MINUTES:
            self._job_metrics.forget(key)
            return
        if now >= job.ends:
            self._show(job, job.phase, job.reason)
        elif job.runs(now):
            if not job.is_stalled(now):
                job.trained += SCRAPE_SECONDS / 60
                risen = 1 - math.exp(-3.5 * job.trained / job.minutes)
                noise = self._random.gauss(0, 0.012)
                job.reward = job.first + (job.last - job.first) * risen + noise
            self._show(job, "Running", Reason.NO_PROGRESS if job.is_stalled(now) else Reason.TRAINING)
        elif job.started is not None:
            self._show(job, "Starting", Reason.STARTING)
        elif now <= job.created + 0.5:
            self._show(job, "Pending", Reason.PLANNED)
        else:
            self._show(job, "Queued", Reason.QUEUED)

    def _show(self, job: InventedJob, phase: str, reason: str) -> None:
        show(
            self._job_metrics,
            (job.namespace, job.name),
            phase,
            reason,
            since=datetime.fromtimestamp(BEGIN.timestamp() + 60 * job.created, UTC),
            stalled=job.is_stalled(self._minute),
            usage={"gpuSeconds": job.trained * 60 * job.gpus},
            progress={"step": int(job.trained * 60 / STEP_SECONDS)},
            reward={"latest": job.reward},
        )

    def _operator(self) -> None:
        """Count in the metrics what the operator has done since the previous scrape."""
        running = sum(job.runs(self._minute) for job in self._jobs)
        known = sum(job.created <= self._minute <= job.ends + TTL_MINUTES for job in self._jobs)
        new = sum(0 <= self._minute - job.created < SCRAPE_SECONDS / 60 for job in self._jobs)
        answers = not self._during(SILENT)
        reports = self._about(running * SCRAPE_SECONDS / REPORT_SECONDS)
        metrics.REPORTS.labels("200" if answers else "503").inc(reports)
        if self._during(FLOOD):
            metrics.REPORTS.labels("429").inc(self._about(24))
        rounds = self._about(reports * 0.8 + known * 0.1 + new * 6)
        metrics.RECONCILES.labels("done" if answers else "error").inc(rounds)
        for _ in range(rounds):
            taken = self._random.lognormvariate(math.log(0.04), 0.6)
            metrics.RECONCILE_SECONDS.observe(taken if answers else 5 + taken)
        if answers:
            requests = {"GET": known * 0.4 + new * 8, "PATCH": rounds * 0.6, "POST": running * 0.2 + new * 5}
            for method, count in requests.items():
                metrics.API_REQUESTS.labels(method, "201" if method == "POST" else "200").inc(
                    self._about(count)
                )
        metrics.LEASE_HELD.set(1)
        metrics.WATCH_SILENCE.set(self._silence())

    def _about(self, count: float) -> int:
        """Return a random whole number near ``count``."""
        return max(0, round(count + self._random.gauss(0, 0.15 * count + 0.3)))

    def _silence(self) -> float:
        """Return how many seconds ago the operator connected the oldest of its five watches."""
        now, begin, end = self._minute * 60, SILENT[0] * 60, SILENT[1] * 60
        connected = [now - (now + watch * 41) % WATCH_SECONDS for watch in range(5)]
        if begin <= now < end:
            # What would have connected since then has not: the watch before is its last one.
            connected = [each - WATCH_SECONDS if each > begin else each for each in connected]
        return now - min(connected)
