"""The operator's metrics, for Prometheus. ``rft_api.metrics`` has their names, labels and meaning."""

from prometheus_client import REGISTRY, Counter, Gauge, Histogram

from rft_api.metrics import METRICS
from rft_operator.job_metrics import JobMetrics


def _counter(name: str) -> Counter:
    return Counter(name, METRICS[name].help, METRICS[name].labels)


def _gauge(name: str) -> Gauge:
    return Gauge(name, METRICS[name].help, METRICS[name].labels)


RECONCILES = _counter("rft_reconciles_total")
RECONCILE_SECONDS = Histogram("rft_reconcile_seconds", METRICS["rft_reconcile_seconds"].help)
API_REQUESTS = _counter("rft_api_requests_total")
STATUS_WRITES = _counter("rft_status_writes_total")
QUEUE_LENGTH = _gauge("rft_queue_length")
REPORTS = _counter("rft_ingest_requests_total")
INGEST_CONNECTIONS = _gauge("rft_ingest_connections")
REVIEWS = _counter("rft_ingest_token_reviews_total")
LEASE_HELD = _gauge("rft_lease_held")
WATCH_SILENCE = _gauge("rft_watch_silence_seconds")
WATCH_REFUSED = _gauge("rft_watch_refused")
JOBS = JobMetrics(REGISTRY)
