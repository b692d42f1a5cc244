"""What was seen is good until something changes, and never for acting."""

from dataclasses import replace

from rft_operator.memo import GOOD_SECONDS, Memo
from rft_operator.observe import Child, Observed, Received
from rft_operator.queue import Key
from tests.unit.test_operator_reconcile import NOW, once, report, rftjob

KEY: Key = ("team", "sums")
SEEN = Observed(child=Child("job-1"), ca_current=True)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def kept(memo: Memo, observed: Observed = SEEN) -> None:
    memo.keep(KEY, memo.begin(KEY), rftjob(), observed)


def test_what_was_seen_comes_back_until_its_time_is_over() -> None:
    clock = Clock()
    memo = Memo(clock)
    assert memo.get(KEY) is None
    kept(memo)
    assert memo.get(KEY) == (rftjob(), SEEN)
    clock.now += GOOD_SECONDS + 1
    assert memo.get(KEY) is None


def test_a_change_outdates_what_was_seen_and_what_is_being_read() -> None:
    memo = Memo(Clock())
    kept(memo)
    memo.changed(KEY)
    assert memo.get(KEY) is None
    begun = memo.begin(KEY)
    memo.changed(KEY)
    memo.keep(KEY, begun, rftjob(), SEEN)
    assert memo.get(KEY) is None, "it was read before the change, or in the middle of it"


def test_our_own_write_replaces_the_job_and_nothing_else() -> None:
    memo = Memo(Clock())
    memo.written(KEY, rftjob({"phase": "Running"}))
    assert memo.get(KEY) is None, "a write is no look at the children"
    kept(memo)
    written = rftjob({"phase": "Running"})
    written["metadata"] |= {"resourceVersion": "2", "managedFields": [{"manager": "x"}]}
    memo.written(KEY, written)
    seen = memo.get(KEY)
    assert seen is not None
    assert seen[0]["metadata"]["resourceVersion"] == "2"
    assert "managedFields" not in seen[0]["metadata"]
    assert seen[1] == SEEN


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
