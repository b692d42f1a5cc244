"""kopf is configured to use little memory: it reads lists in pages, and keeps objects only briefly."""

from rft_operator.handlers import IDLE_SECONDS, LIST_CHUNK, kopf_settings


def test_kopf_reads_lists_in_parts_and_releases_objects_soon() -> None:
    settings = kopf_settings(180)
    assert settings.watching.chunk_size == LIST_CHUNK
    # More than zero: kopf processes the events of an object only while it waits for more of them.
    assert 0 < settings.queueing.idle_timeout == IDLE_SECONDS < 1
