"""kopf is set to hold few objects: of each kind a part of the list at a time, and each for a moment."""

from rft_operator.handlers import IDLE_SECONDS, LIST_CHUNK, kopf_settings


def test_a_watch_that_begins_reads_its_list_in_parts_and_lets_go_of_each_object() -> None:
    settings = kopf_settings(180)
    assert settings.watching.chunk_size == LIST_CHUNK
    # Not zero: kopf takes events only while it waits.
    assert 0 < settings.queueing.idle_timeout == IDLE_SECONDS < 1
