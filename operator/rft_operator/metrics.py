"""The operator's own metrics, for Prometheus."""

from prometheus_client import Counter, Gauge, Histogram

RECONCILES = Counter("rft_reconciles_total", "Reconciliations of RFTJobs, by result.", ["result"])
RECONCILE_SECONDS = Histogram("rft_reconcile_seconds", "Time of one reconciliation, with all requests.")
API_REQUESTS = Counter(
    "rft_api_requests_total",
    "Answers of the API server, watches left out, by method and status.",
    ["method", "status"],
)
STATUS_WRITES = Counter("rft_status_writes_total", "Patches of the status of RFTJobs.")
QUEUE_LENGTH = Gauge("rft_queue_length", "RFTJobs in the work queue, due now or later.")
REPORTS = Counter("rft_ingest_requests_total", "Requests to the ingest, by HTTP status.", ["status"])
INGEST_CONNECTIONS = Gauge("rft_ingest_connections", "Connections to the ingest that are open now.")
REVIEWS = Counter("rft_ingest_token_reviews_total", "Token reviews sent to the API server.")
LEASE_HELD = Gauge("rft_lease_held", "1 while this process holds the Lease, and so may act.")
WATCH_SILENCE = Gauge("rft_watch_silence_seconds", "Longest time since a watch last connected.")
