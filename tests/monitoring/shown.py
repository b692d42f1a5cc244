"""Passes invented statuses of RFTJobs to the operator's metrics."""

import time
from datetime import datetime
from typing import Any

from rft_operator.clock import rfc3339
from rft_operator.job_metrics import JobMetrics
from rft_operator.queue import Key


def show(
    jobs: JobMetrics,
    key: Key,
    phase: str,
    reason: str,
    *,
    since: datetime,
    stalled: bool = False,
    **status: Any,
) -> None:
    """Pass the status of an RFTJob to the metrics, as the operator does after it has read the RFTJob.

    - ``key``: namespace and name of the RFTJob.
    - ``since``: when the RFTJob began to wait.
    - ``status``: further fields of the status.
    """
    conditions = [
        {"type": "Reconciling", "status": "True", "lastTransitionTime": rfc3339(since)},
        {"type": "Ready", "reason": reason},
        {"type": "Stalled", "status": str(stalled)},
    ]
    metadata = {"resourceVersion": str(time.monotonic_ns())}
    if phase == "Pending":
        # Like a new job, which is first seen without a status.
        jobs.observe(key, {"metadata": metadata, "status": {}})
    jobs.observe(key, {"metadata": metadata, "status": {"phase": phase, "conditions": conditions, **status}})
