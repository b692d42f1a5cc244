"""What was seen is good until something changes, and never for acting."""

from dataclasses import replace
from typing import Any

from rft_operator.memo import GOOD_SECONDS, Memo
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


def told(version: str = "1", **status: str) -> dict[str, Any]:
    document = rftjob(status)
    document["metadata"]["resourceVersion"] = version
    return document


def kept(memo: Memo, observed: Observed = SEEN) -> None:
    memo.tell(KEY, told())
    memo.keep(KEY, memo.begin(KEY), observed)


def test_what_was_seen_comes_back_until_its_time_is_over() -> None:
    clock = Clock()
    memo = Memo(clock)
    assert memo.get(KEY) is None
    kept(memo)
    assert memo.get(KEY) == (told(), SEEN)
    kept(memo, STARTED)
    assert memo.get(KEY) == (told(), STARTED), "with its snapshot"
    clock.now += GOOD_SECONDS + 1
    assert memo.get(KEY) is None


def test_a_change_outdates_what_was_seen_and_what_is_being_read() -> None:
    memo = Memo(Clock())
    kept(memo)
    memo.changed(KEY)
    assert memo.get(KEY) is None
    begun = memo.begin(KEY)
    memo.changed(KEY)
    memo.keep(KEY, begun, SEEN)
    assert memo.get(KEY) is None, "it was read before the change, or in the middle of it"


def test_the_job_is_what_was_told_last_and_says_nothing_about_its_children() -> None:
    memo = Memo(Clock())
    memo.tell(KEY, told("99"))
    assert memo.get(KEY) is None
    written = told("100", phase="Running")
    written["metadata"]["managedFields"] = [{"manager": "x"}]
    memo.tell(KEY, written)
    memo.tell(KEY, told("98", phase="Pending"))
    assert memo.document(KEY) == told("100", phase="Running"), "the watch may be behind our own write"
    kept(memo)
    seen = memo.get(KEY)
    assert seen is not None
    assert seen == (told("100", phase="Running"), SEEN)


def test_what_was_told_ends_with_its_time_and_with_doubt() -> None:
    clock = Clock()
    memo = Memo(clock)
    memo.tell(KEY, told())
    clock.now += GOOD_SECONDS + 1
    assert memo.document(KEY) is None
    kept(memo)
    memo.doubt(KEY)
    assert memo.document(KEY) is None
    assert memo.get(KEY) is None
    memo.tell(KEY, told("1"))
    assert memo.document(KEY) == told("1"), "after a deletion the versions may begin anew"


def test_reports_are_not_remembered_here() -> None:
    memo = Memo(Clock())
    received: Received = report()
    kept(memo, replace(SEEN, received=received))
    seen = memo.get(KEY)
    assert seen is not None
    assert seen[1].received is None


def test_a_decision_that_makes_removes_or_ends_something_acts() -> None:
    assert once(rftjob(), Observed(ca_current=True), NOW).acts, "the child is made"
    assert once(rftjob(cancel=True), SEEN, NOW).acts, "the child is removed"
    assert not once(rftjob(sampling={"topK": 500}), Observed(), NOW).acts, "an invalid spec is only told"


def test_the_pods_are_to_be_as_new_as_the_newest_that_was_told() -> None:
    memo = Memo(Clock())
    assert memo.pods_version(KEY) == "0", "any will do"
    for told in ("99", "", "1000", "998"):
        memo.changed(KEY, told)
    assert memo.pods_version(KEY) == "1000"
    memo.forget(KEY)
    assert memo.pods_version(KEY) == "0"
