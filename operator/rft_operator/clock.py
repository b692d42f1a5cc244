"""Timestamps in the form that Kubernetes uses."""

from datetime import UTC, datetime

_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


def rfc3339(moment: datetime) -> str:
    """Return a time as Kubernetes writes it, such as ``2026-11-22T18:00:00Z``."""
    return moment.astimezone(UTC).strftime(_FORMAT)


def parse(text: str | None) -> datetime | None:
    """Parse a timestamp of Kubernetes. Return ``None`` if the text is empty or is not a timestamp.

    A timestamp without a time zone counts as UTC.
    """
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
