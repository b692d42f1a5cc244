"""kopf is configured to use little memory: it reads lists in pages, and keeps objects only briefly."""

import pytest

from rft_operator.handlers import IDLE_SECONDS, LIST_CHUNK, kopf_settings, version_told


def test_kopf_reads_lists_in_parts_and_releases_objects_soon() -> None:
    settings = kopf_settings(180)
    assert settings.watching.chunk_size == LIST_CHUNK
    # More than zero: kopf processes the events of an object only while it waits for more of them.
    assert 0 < settings.queueing.idle_timeout == IDLE_SECONDS < 1


@pytest.mark.parametrize(
    ("event", "version"), [("ADDED", "7"), ("MODIFIED", "7"), ("DELETED", ""), (None, "")], ids=str
)
def test_a_deletion_and_a_list_do_not_tell_that_a_child_is_as_it_was_created(
    event: str | None, version: str
) -> None:
    assert version_told(event, {"resourceVersion": "7"}) == version
