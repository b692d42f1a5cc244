"""The operator's metrics for Prometheus: names, labels and meaning. Alerts and dashboards rely on them."""

from typing import Literal, NamedTuple

MAX_JOB_SERIES = 500
"""Maximum number of running RFTJobs with time series of their own."""


class Metric(NamedTuple):
    """A metric. The names of a counter's time series end with ``_total``."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets, in the metric's unit. Empty: the library's default."""


_ALL = (
    Metric(
        "rft_jobs",
        "gauge",
        ("namespace", "phase"),
        "RFTJobs, by phase, for namespaces that have any.",
    ),
    Metric(
        "rft_jobs_stalled",
        "gauge",
        ("namespace",),
        "RFTJobs that have not ended and whose condition Stalled is True.",
    ),
    Metric(
        "rft_jobs_longest_wait_seconds",
        "gauge",
        ("namespace",),
        "Seconds since the longest waiting RFTJob in phase Pending or Queued waits. 0 if none waits.",
    ),
    Metric(
        "rft_jobs_finished_total",
        "counter",
        ("phase", "reason"),
        "RFTJobs that became Succeeded, Failed or Cancelled while this process held the Lease, by reason.",
    ),
    Metric(
        "rft_job_queue_seconds",
        "histogram",
        (),
        "Time from the creation or resumption of an RFTJob until its pod starts.",
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
    Metric("rft_reconciles_total", "counter", ("result",), "Reconciliations of RFTJobs, by result."),
    Metric("rft_reconcile_seconds", "histogram", (), "Time of one reconciliation, with all requests."),
    Metric(
        "rft_api_requests_total",
        "counter",
        ("method", "status"),
        "Answers of the API server, watches left out, by method and status.",
    ),
    Metric("rft_status_writes_total", "counter", (), "Patches of the status of RFTJobs."),
    Metric("rft_queue_length", "gauge", (), "RFTJobs in the work queue, due now or later."),
    Metric("rft_ingest_requests_total", "counter", ("status",), "Requests to the ingest, by HTTP status."),
    Metric("rft_ingest_connections", "gauge", (), "Connections to the ingest that are open now."),
    Metric("rft_ingest_token_reviews_total", "counter", (), "Token reviews sent to the API server."),
    Metric("rft_lease_held", "gauge", (), "1 while this process holds the Lease, and so may act."),
    Metric("rft_watch_silence_seconds", "gauge", (), "Longest time since a watch last got an answer."),
    Metric(
        "rft_watch_refused",
        "gauge",
        ("path",),
        "1 while the API server refuses a list or watch, by its URL path.",
    ),
)
METRICS = {metric.name: metric for metric in _ALL}
"""Every metric of the operator, by name."""
