"""Removes secrets from texts before the cluster shows them in a status, an Event, a termination message or a
log.

Everybody who may read RFTJobs can read these texts, even without the right to read the logs of pods. So every
text from a run, a pod, another program or the API server passes through ``cluster_text`` first.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NewType

from rft_api.conditions import MAX_MESSAGE
from rft_api.controls import without_controls
from rft_run.redact import redacted

ClusterText = NewType("ClusterText", str)
"""A text that is safe to show in a cluster: without control characters, and with secrets replaced.

Only ``cluster_text`` makes such texts. A type checker then finds texts that were not cleaned."""
ClusterObject = NewType("ClusterObject", dict[str, Any])
"""A JSON object, such as a status, in which every text is safe to show in a cluster (``ClusterText``)."""

MAX_READ = 64 * 1024
"""Maximum number of characters that are kept of a text and searched for secrets. Later characters are left
out."""
_SHORT = 1024
"""Maximum number of characters of a text whose cleaned form is cached.

Short texts recur: names occur very often, and the status and the Events of many RFTJobs have the same
message."""


def cluster_text(text: str, most: int = MAX_MESSAGE) -> ClusterText:
    """Return ``text`` in a form that is safe to show in a cluster: without control characters, with secrets
    replaced, and truncated to ``most`` characters.

    Secrets are replaced before the text is truncated, because a truncated secret would not be found. Newlines
    and tabs are kept.
    """
    clean = _short(text) if len(text) <= _SHORT else _clean(text)
    return ClusterText(clean if len(clean) <= most else clean[: most - 1] + "…")


def cluster_object(body: Mapping[str, Any], most: int = MAX_MESSAGE) -> ClusterObject:
    """Return a copy of the JSON object ``body`` that is safe to show in a cluster.

    ``cluster_text`` cleans every text and every field name in it, and truncates each text to ``most``
    characters.
    """
    return ClusterObject({cluster_text(str(name)): _cleaned(value, most) for name, value in body.items()})


def _cleaned(value: Any, most: int) -> Any:
    if isinstance(value, str):
        return cluster_text(value, most)
    if isinstance(value, Mapping):
        return cluster_object(value, most)
    return [_cleaned(item, most) for item in value] if isinstance(value, list | tuple) else value


def _clean(text: str) -> str:
    if len(text) > MAX_READ:
        # The last word is left out, because it may be the first half of a secret.
        start, least = text[:MAX_READ], MAX_READ - MAX_MESSAGE
        text = start[: max(start.rfind(" ", least), start.rfind("\n", least), least)] + " …"
    return redacted(without_controls(text))


_short = lru_cache(2048)(_clean)
