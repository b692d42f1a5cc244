"""Metrics of RFTJobs: phases, rewards, GPU-seconds, queue times, reasons. The number of series is limited."""

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from rft_api.metrics import MAX_JOB_SERIES, METRICS
from rft_operator import metrics
from rft_operator.job_metrics import OTHER, JobMetrics

NOON = 1_800_000_000.0
KEY = ("ns", "job")


class Clock:
    """A clock that the test advances, in seconds since 1970."""

    now = NOON

    def __call__(self) -> float:
        return self.now


class Jobs:
    """The metrics of RFTJobs, in a Prometheus registry for one test."""

    def __init__(self) -> None:
        self.registry, self.clock, self.version = CollectorRegistry(), Clock(), 0
        self.metrics = JobMetrics(self.registry, self.clock)

    def see(self, phase: str = "", reason: str = "R", name: str = "job", **status: Any) -> None:
        """Let the metrics observe an RFTJob with this status. Each call has a higher resource version."""
        self.version += 1
        self.metrics.observe(("ns", name), document(phase, reason, str(self.version), **status))

    def value(self, series: str, **labels: str) -> float | None:
        """Return the value of a time series, or ``None`` if it does not exist."""
        return self.registry.get_sample_value(series, labels)


def document(phase: str, reason: str, version: str, **status: Any) -> dict[str, Any]:
    waits = {"type": "Reconciling", "status": "True", "lastTransitionTime": "2027-01-15T08:00:00Z"}
    ready = {"type": "Ready", "status": "False", "reason": reason}
    metadata = {"resourceVersion": version, "creationTimestamp": "2027-01-15T07:59:59Z"}
    conditions = {"conditions": [waits, ready]} if phase else {}
    return {"metadata": metadata, "status": {"phase": phase or None, **conditions, **status}}


@pytest.fixture
def jobs() -> Jobs:
    return Jobs()


def test_jobs_are_counted_by_phase_until_they_are_deleted(jobs: Jobs) -> None:
    jobs.see()
    assert jobs.value("rft_jobs", namespace="ns", phase="Pending") == 1, "a job without a status is Pending"
    jobs.see("Running")
    assert jobs.value("rft_jobs", namespace="ns", phase="Pending") == 0
    assert jobs.value("rft_jobs", namespace="ns", phase="Running") == 1
    jobs.metrics.forget(KEY)
    assert jobs.value("rft_jobs", namespace="ns", phase="Running") is None


def test_an_end_is_counted_once_by_its_reason(jobs: Jobs) -> None:
    count = {"phase": "Failed", "reason": "DataError"}
    assert jobs.value("rft_jobs_finished_total", **count) == 0, "the counter must exist before a job ends"
    jobs.see("Running")
    jobs.see("Failed", "DataError")
    jobs.see("Failed", "DataError")
    assert jobs.value("rft_jobs_finished_total", **count) == 1
    jobs.see("Failed", "OfALaterVersion", name="other")
    assert jobs.value("rft_jobs_finished_total", phase="Failed", reason=OTHER) is None, (
        "a job that had ended before this process saw it does not count"
    )
    jobs.see("Pending", name="third")
    jobs.see("Failed", "OfALaterVersion", name="third")
    assert jobs.value("rft_jobs_finished_total", phase="Failed", reason=OTHER) == 1


def test_an_older_version_that_arrives_late_changes_nothing(jobs: Jobs) -> None:
    jobs.see("Running")
    jobs.see("Succeeded", "Completed")
    jobs.metrics.observe(KEY, document("Running", "Training", "1"))
    jobs.see("Succeeded", "Completed")
    assert jobs.value("rft_jobs_finished_total", phase="Succeeded", reason="Completed") == 1


def test_gpu_seconds_count_what_is_used_while_the_process_looks(jobs: Jobs) -> None:
    jobs.see("Running", usage={"gpuSeconds": 100.0})
    assert jobs.value("rft_gpu_seconds_total", namespace="ns") is None, (
        "an earlier process has counted the first 100 GPU-seconds"
    )
    jobs.see("Running", usage={"gpuSeconds": 130.0})
    jobs.see("Running")
    jobs.see("Running", usage={"gpuSeconds": 5.0})
    assert jobs.value("rft_gpu_seconds_total", namespace="ns") == 35.0


def test_queue_time_is_from_the_time_when_the_job_began_to_wait(jobs: Jobs) -> None:
    jobs.see("Pending")
    jobs.clock.now = NOON + 40
    assert jobs.value("rft_jobs_longest_wait_seconds", namespace="ns") == 40
    jobs.see("Queued")
    jobs.see("Starting")
    jobs.see("Running")
    assert jobs.value("rft_job_queue_seconds_count") == 1
    assert jobs.value("rft_job_queue_seconds_sum") == 40
    assert jobs.value("rft_jobs_longest_wait_seconds", namespace="ns") == 0


def test_a_running_job_has_series_of_its_own_and_a_bounded_number_of_jobs_has(jobs: Jobs) -> None:
    jobs.see("Running", progress={"step": 7}, reward={"latest": 0.25})
    assert jobs.value("rft_job_step", namespace="ns", name="job") == 7
    assert jobs.value("rft_job_reward", namespace="ns", name="job") == 0.25
    jobs.see("Succeeded", progress={"step": 7}, reward={"latest": 0.25})
    assert jobs.value("rft_job_reward", namespace="ns", name="job") is None
    for number in range(MAX_JOB_SERIES + 1):
        jobs.see("Running", name=f"n{number}")
    families = {family.name: family for family in jobs.metrics.collect()}
    assert len(families["rft_job_step"].samples) == MAX_JOB_SERIES


def test_stalled_jobs_are_counted(jobs: Jobs) -> None:
    jobs.see("Running", conditions=[{"type": "Stalled", "status": "True"}])
    assert jobs.value("rft_jobs_stalled", namespace="ns") == 1


def test_every_metric_is_exported_with_its_labels_and_named_as_prometheus_asks() -> None:
    exported = {
        family.name + ("_total" if family.type == "counter" else ""): family
        for collector in (metrics.JOBS, *vars(metrics).values(), *vars(metrics.JOBS).values())
        if hasattr(collector, "collect") and not isinstance(collector, type)
        for family in collector.collect()
        if family.name.startswith("rft_")
    }
    assert exported.keys() == METRICS.keys()
    for name, metric in METRICS.items():
        assert exported[name].type == metric.kind
        assert name.endswith("_total") == (metric.kind == "counter")
        assert metric.help.endswith(".")
        labels = {label for sample in exported[name].samples for label in sample.labels}
        assert labels - {"le"} <= set(metric.labels)
