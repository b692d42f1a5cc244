"""``spec.ttlSecondsAfterFinished``: when the children of a job that is over are removed.

The RFTJob stays: one that removed itself would be applied again by a GitOps tool, and train again.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from rft_operator import clock


def seconds_left(document: Mapping[str, Any], status: Mapping[str, Any], now: datetime) -> float | None:
    """Return the seconds until the children go, 0 from then on; ``None`` where they stay.

    The user's own field counts, which may change after the end. ``status`` is the one that will stand.
    """
    ttl = (document.get("spec") or {}).get("ttlSecondsAfterFinished")
    ended = clock.parse(status.get("completionTime"))
    if not isinstance(ttl, int) or isinstance(ttl, bool) or ttl < 0 or ended is None:
        return None
    return max(0.0, (ended + timedelta(seconds=ttl) - now).total_seconds())
