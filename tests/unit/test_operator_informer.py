"""The informer cache: events and resyncs make entries stale. Stale entries are read again before use."""

from dataclasses import replace
from typing import Any

from rft_operator.informer import RESYNC_SECONDS, InformerCache, compressed, decompressed
from rft_operator.observe import Child, Observed, Received
from rft_operator.queue import Key
from tests.unit.reconcile_support import NOW, STARTED, once, report, rftjob

KEY: Key = ("team", "sums")
SEEN = Observed(child=Child("job-1"), ca_current=True)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def rftjob_at(version: str = "1", **status: str) -> dict[str, Any]:
    document = rftjob(status)
    document["metadata"]["resourceVersion"] = version
    return document


def stored(cache: InformerCache, observed: Observed = SEEN) -> None:
    cache.update(KEY, rftjob_at())
    cache.store(KEY, cache.revision(KEY), observed)


def test_a_cached_state_is_valid_until_the_resync() -> None:
    clock = Clock()
    cache = InformerCache(clock)
    assert cache.snapshot(KEY) is None
    stored(cache)
    assert cache.snapshot(KEY) == (rftjob_at(), SEEN, False)
    stored(cache, STARTED)
    assert cache.snapshot(KEY) == (rftjob_at(), STARTED, False), "the new state must replace the old one"
    clock.now += RESYNC_SECONDS + 1
    assert cache.snapshot(KEY) is None


def test_a_change_invalidates_the_cached_state_and_a_read_under_way() -> None:
    cache = InformerCache(Clock())
    stored(cache)
    cache.invalidate_children(KEY)
    assert cache.snapshot(KEY) is None
    revision = cache.revision(KEY)
    cache.invalidate_children(KEY)
    cache.store(KEY, revision, SEEN)
    assert cache.snapshot(KEY) is None, "the result of a read that began before the change must not be stored"


def test_the_newest_version_of_an_rftjob_is_cached_apart_from_its_children() -> None:
    cache = InformerCache(Clock())
    cache.update(KEY, rftjob_at("99"))
    assert cache.snapshot(KEY) is None
    written = rftjob_at("100", phase="Running")
    written["metadata"]["managedFields"] = [{"manager": "x"}]
    cache.update(KEY, written)
    cache.update(KEY, rftjob_at("98", phase="Pending"))
    assert cache.job(KEY) == rftjob_at("100", phase="Running"), (
        "the version that the operator wrote must not be replaced by an older one from the watch"
    )
    stored(cache)
    seen = cache.snapshot(KEY)
    assert seen is not None
    assert seen == (rftjob_at("100", phase="Running"), SEEN, False)


def test_a_cached_rftjob_is_dropped_at_the_resync_and_when_invalidated() -> None:
    clock = Clock()
    cache = InformerCache(clock)
    cache.update(KEY, rftjob_at())
    clock.now += RESYNC_SECONDS + 1
    assert cache.job(KEY) is None
    stored(cache)
    cache.invalidate(KEY)
    assert cache.job(KEY) is None
    assert cache.snapshot(KEY) is None
    cache.update(KEY, rftjob_at("1"))
    assert cache.job(KEY) == rftjob_at("1"), "after a deletion the cache must accept a lower version"


def test_reports_are_not_cached() -> None:
    cache = InformerCache(Clock())
    received: Received = report()
    stored(cache, replace(SEEN, received=received))
    seen = cache.snapshot(KEY)
    assert seen is not None
    assert seen[1].received is None


def test_a_decision_acts_if_it_creates_deletes_or_ends_an_object() -> None:
    assert once(rftjob(), Observed(ca_current=True), NOW).acts, "this decision creates the child"
    assert once(rftjob(cancel=True), SEEN, NOW).acts, "this decision deletes the child"
    assert not once(rftjob(sampling={"topK": 500}), Observed(), NOW).acts, (
        "for an invalid spec this decision only changes the status"
    )


def test_pods_are_read_at_least_as_new_as_the_newest_event() -> None:
    cache = InformerCache(Clock())
    assert cache.pods_version(KEY) == "0", "resource version 0 lets the API server return any version"
    for version in ("99", "", "1000", "998"):
        cache.invalidate_children(KEY, version)
    assert cache.pods_version(KEY) == "1000"
    cache.remove(KEY)
    assert cache.pods_version(KEY) == "0"


def test_an_event_of_the_job_or_a_pod_makes_only_job_and_pods_stale() -> None:
    clock = Clock()
    cache = InformerCache(clock)
    stored(cache, STARTED)
    cache.invalidate_children(KEY, "5", job_or_pod=True)
    assert cache.snapshot(KEY) == (rftjob_at(), STARTED, True)
    assert cache.pods_version(KEY) == "5"
    newer = replace(STARTED, child=replace(SEEN.child or Child(""), failed_pods=1))
    clock.now += RESYNC_SECONDS / 2
    cache.refresh(KEY, cache.revision(KEY), newer)
    assert cache.snapshot(KEY) == (rftjob_at(), newer, False)
    cache.invalidate_children(KEY, job_or_pod=True)
    cache.invalidate_children(KEY)
    assert cache.snapshot(KEY) is None, "an event of another kind of child makes the whole state stale"


def test_a_refresh_of_job_and_pods_does_not_delay_the_resync() -> None:
    clock = Clock()
    cache = InformerCache(clock)
    stored(cache)
    clock.now += RESYNC_SECONDS
    cache.invalidate_children(KEY, job_or_pod=True)
    cache.refresh(KEY, cache.revision(KEY), SEEN)
    cache.update(KEY, rftjob_at())
    assert cache.snapshot(KEY) is not None
    clock.now += 1
    assert cache.snapshot(KEY) is None


def test_a_refresh_is_discarded_if_another_event_came_during_the_read() -> None:
    cache = InformerCache(Clock())
    stored(cache)
    cache.invalidate_children(KEY, job_or_pod=True)
    revision = cache.revision(KEY)
    cache.invalidate_children(KEY, job_or_pod=True)
    cache.refresh(KEY, revision, STARTED)
    assert cache.snapshot(KEY) == (rftjob_at(), SEEN, True), "a pod changed, so the read must be discarded"
    revision = cache.revision(KEY)
    cache.remove(KEY)
    cache.refresh(KEY, revision, STARTED)
    assert cache.snapshot(KEY) is None, "the RFTJob is gone"


def test_a_compressed_document_is_smaller_and_decompresses_to_the_same() -> None:
    document = rftjob_at("7", message="Wartet auf die Größe \u2028 «x»")
    document["spec"]["graders"] = document["spec"]["graders"] * 20
    assert decompressed(compressed(document)) == document
    assert len(compressed(document)) < len(str(document)) / 3
