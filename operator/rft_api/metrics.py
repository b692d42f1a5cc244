"""Defines the operator's metrics for Prometheus: their names, labels and meanings.

The operator, the alerts and the dashboards use these definitions.
"""

from typing import Literal, NamedTuple

MAX_JOB_SERIES = 500
"""Maximum number of running RFTJobs with time series of their own."""


class Metric(NamedTuple):
    """The definition of one of the operator's metrics for Prometheus.

    ``labels`` are the names of the labels. ``help`` says what the metric counts or measures. The name of a
    counter ends with ``_total``.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets, in the unit of the metric. If empty, the default bounds of the
    Prometheus library are used."""


_ALL = (
    Metric(
        "rft_jobs",
        "gauge",
        ("namespace", "phase"),
        "Number of RFTJobs in each phase, for every namespace that has RFTJobs.",
    ),
    Metric(
        "rft_jobs_stalled",
        "gauge",
        ("namespace",),
        "Number of RFTJobs that have not ended and whose condition Stalled is True.",
    ),
    Metric(
        "rft_jobs_longest_wait_seconds",
        "gauge",
        ("namespace",),
        "Seconds that an RFTJob has been in phase Pending or Queued. The value is the largest of all waiting"
        " RFTJobs, or 0 if no RFTJob waits.",
    ),
    Metric(
        "rft_jobs_finished_total",
        "counter",
        ("phase", "reason"),
        "Number of RFTJobs that became Succeeded, Failed or Cancelled while this process held the Lease.",
    ),
    Metric(
        "rft_job_queue_seconds",
        "histogram",
        (),
        "Seconds from the creation or resumption of an RFTJob until its pod starts.",
        (1, 5, 15, 60, 300, 900, 3600, 14400, 86400),
    ),
    Metric(
        "rft_gpu_seconds_total",
        "counter",
        ("namespace",),
        "GPU-seconds of steps and evaluations that trainers reported while this process held the Lease.",
    ),
    Metric(
        "rft_job_reward",
        "gauge",
        ("namespace", "name"),
        f"Latest mean reward of a running RFTJob, for {MAX_JOB_SERIES} RFTJobs at most.",
    ),
    Metric(
        "rft_job_step",
        "gauge",
        ("namespace", "name"),
        f"Last training step of a running RFTJob, for {MAX_JOB_SERIES} RFTJobs at most.",
    ),
    Metric("rft_reconciles_total", "counter", ("result",), "Number of reconciliations, by result."),
    Metric(
        "rft_reconcile_seconds",
        "histogram",
        (),
        "Duration of one reconciliation in seconds, with its requests to the API server.",
    ),
    Metric(
        "rft_api_requests_total",
        "counter",
        ("method", "status"),
        "Number of the API server's answers to requests other than watches, by method and status.",
    ),
    Metric("rft_status_writes_total", "counter", (), "Number of writes of RFTJobs' statuses."),
    Metric(
        "rft_queue_length",
        "gauge",
        (),
        "Number of RFTJobs in the work queue: those to reconcile now, and those to reconcile later.",
    ),
    Metric(
        "rft_ingest_requests_total",
        "counter",
        ("status",),
        "Number of requests to the ingest, by HTTP status.",
    ),
    Metric("rft_ingest_connections", "gauge", (), "Number of open connections to the ingest."),
    Metric("rft_ingest_token_reviews_total", "counter", (), "Number of token reviews by the API server."),
    Metric("rft_lease_held", "gauge", (), "1 while this process holds the Lease, else 0."),
    Metric(
        "rft_watch_silence_seconds",
        "gauge",
        (),
        "Seconds since the API server last accepted a watch of the operator. The value is the largest of all"
        " watches.",
    ),
    Metric(
        "rft_watch_refused",
        "gauge",
        ("path",),
        "1 while the API server refuses the list or watch with this URL path, else 0.",
    ),
)
METRICS = {metric.name: metric for metric in _ALL}
"""Every metric of the operator, by name."""
