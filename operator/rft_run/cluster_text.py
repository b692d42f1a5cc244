"""Prepares texts that are shown in a cluster: in a status, an Event, a termination message or a log.

Everybody who may read RFTJobs can read these texts, even without the right to read the logs of pods. So every
text that a run, a pod, another program or the API server has written passes through ``cluster_text`` first.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NewType

from rft_api.conditions import MAX_MESSAGE
from rft_api.controls import without_controls
from rft_run.redact import redacted

ClusterText = NewType("ClusterText", str)
"""A text without control characters, and without the secrets that ``redacted`` finds."""
ClusterObject = NewType("ClusterObject", dict[str, Any])
"""An object whose texts are all ``ClusterText``, such as a status."""

MAX_READ = 64 * 1024
"""Maximum number of characters of a text that are searched for secrets. The rest of the text is left out."""
_SHORT = 1024
"""Texts of at most this number of characters are cached in their cleaned form. Names occur very often, and
the same message goes to the status and to an Event, often of many RFTJobs."""


def cluster_text(text: str, most: int = MAX_MESSAGE) -> ClusterText:
    """Return a text without secrets and control characters, of at most ``most`` characters.

    Secrets are replaced before the text is truncated, because a truncated secret would not be found. Newlines
    and tabs are kept.
    """
    clean = _short(text) if len(text) <= _SHORT else _clean(text)
    return ClusterText(clean if len(clean) <= most else clean[: most - 1] + "…")


def cluster_object(body: Mapping[str, Any], most: int = MAX_MESSAGE) -> ClusterObject:
    """Return a JSON object in which ``cluster_text`` has cleaned every text and every name of a field.

    Each text has at most ``most`` characters.
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
