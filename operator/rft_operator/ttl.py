"""Decides when the child objects of a finished job are deleted (``spec.ttlSecondsAfterFinished``).

The RFTJob itself is kept. If it were deleted, a GitOps tool would apply it again, and start a new
training.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from rft_operator import clock


def seconds_left(document: Mapping[str, Any], status: Mapping[str, Any], now: datetime) -> float | None:
    """Return the seconds until the children of a finished job must be deleted, or 0 if the TTL has passed.

    Return ``None`` if the job has not ended, or if it has no TTL, so that its children stay.

    - ``document``: the RFTJob. Its current spec has the TTL, which may change after the end of the run.
    - ``status``: the new status, which has the time when the job ended.
    """
    ttl = (document.get("spec") or {}).get("ttlSecondsAfterFinished")
    ended = clock.parse(status.get("completionTime"))
    if not isinstance(ttl, int) or isinstance(ttl, bool) or ttl < 0 or ended is None:
        return None
    return max(0.0, (ended + timedelta(seconds=ttl) - now).total_seconds())
