"""The ingest: from which senders it accepts reports, how often, and in which order."""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from pydantic import ValidationError

from rft_operator.ingest import identity
from rft_operator.ingest.cache import CHAIN_SECONDS, MAX_ENTRIES, POSITIVE_SECONDS, AnswerCache, Chains
from rft_operator.ingest.identity import Caller, Refused
from rft_operator.ingest.limits import SAID_AGAIN_SECONDS, Complaints, ReviewGate, SourceLimiter
from rft_operator.ingest.reports import Reports
from rft_operator.observe import Child, Observed, Pod
from rft_run.report import ProgressReport

AUDIENCE = "rft.dev/ingest"
CALLER = Caller("team", "sums", "job-uid", "pod-1", "2026-11-22T18:00:00Z")


def review(**changes: Any) -> dict[str, Any]:
    return {
        "authenticated": True,
        "audiences": [AUDIENCE],
        "user": {
            "username": "system:serviceaccount:team:default",
            "extra": {identity.POD_NAME: ["p"], identity.POD_UID: ["pod-1"]},
        },
        **changes,
    }


def user(**changes: Any) -> dict[str, Any]:
    return {"user": {**review()["user"], **changes}}


def test_a_valid_token_review_names_the_pod() -> None:
    assert identity.claims(review(), AUDIENCE) == identity.Claims("team", "p", "pod-1")


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"authenticated": False}, 401),
        ({"authenticated": None}, 401),
        ({"authenticated": "yes"}, 401),
        ({"audiences": ["vault"]}, 401),
        ({"audiences": []}, 401),
        ({"audiences": None}, 401),
        (user(username="jane"), 403),
        (user(username="system:serviceaccount:team"), 403),
        (user(username="system:serviceaccount::default"), 403),
        (user(username="xsystem:serviceaccount:team:default"), 403),
        (user(extra={}), 403),
        (user(extra={identity.POD_NAME: ["p"]}), 403),
        (user(extra={identity.POD_NAME: ["p"], identity.POD_UID: ["a", "b"]}), 403),
        ({"user": None}, 403),
    ],
)
def test_an_incomplete_token_review_is_refused(changes: dict[str, Any], status: int) -> None:
    with pytest.raises(Refused) as refusal:
        identity.claims(review(**changes), AUDIENCE)
    assert refusal.value.status == status


def controlled(uid: str, by: str, kind: str, api_version: str, controller: bool = True) -> dict[str, Any]:
    reference = {"apiVersion": api_version, "kind": kind, "name": "n", "uid": by, "controller": controller}
    return {"metadata": {"uid": uid, "name": "n", "ownerReferences": [reference]}}


POD = controlled("pod-1", "job-1", "Job", "batch/v1")
CHILD = controlled("job-1", "rft-1", "RFTJob", "rft.dev/v1alpha1")
CLAIMS = identity.Claims("team", "p", "pod-1")


def test_owners_may_have_been_made_with_another_version_of_the_api() -> None:
    pod = controlled("pod-1", "job-1", "Job", "batch/v2")
    child = controlled("job-1", "rft-1", "RFTJob", "rft.dev/v1beta1")
    assert identity.live_child(identity.live_pod(CLAIMS, pod), child)["uid"] == "rft-1"


def test_owner_references_lead_from_the_pod_to_the_rftjob() -> None:
    child_reference = identity.live_pod(CLAIMS, POD)
    job_reference = identity.live_child(child_reference, CHILD)
    job = {
        "metadata": {"uid": "rft-1", "name": "sums", "namespace": "team"},
        "status": {"progress": {"attempt": 3}},
    }
    caller = identity.caller(CLAIMS, POD, identity.live_job(job_reference, job))
    assert (caller.job_uid, caller.job_name, caller.pod_uid, caller.known_attempt) == (
        "rft-1",
        "sums",
        "pod-1",
        3,
    )
    pods = (
        Pod("p", "pod-1", "", controller="job-1", phase="Running"),
        Pod("ended", "pod-0", "", controller="job-1", phase="Failed"),
        Pod("forged", "pod-2", "", controller="job-of-another", phase="Running"),
    )
    assert identity.callers(job, Observed(child=Child("job-1"), pods=pods)) == [caller], (
        "the cached state must give the same sender of reports as the owner references"
    )
    assert identity.callers(job, Observed(pods=pods)) == [], "without a child Job no pod may report"


@pytest.mark.parametrize(
    ("status", "check"),
    [
        (410, lambda: identity.live_pod(CLAIMS, None)),
        (410, lambda: identity.live_pod(CLAIMS, controlled("pod-2", "job-1", "Job", "batch/v1"))),
        (403, lambda: identity.live_pod(CLAIMS, {**POD, "status": {"phase": "Failed"}})),
        (403, lambda: identity.live_pod(CLAIMS, {"metadata": {"uid": "pod-1"}})),
        (
            403,
            lambda: identity.live_pod(CLAIMS, controlled("pod-1", "j", "Job", "batch/v1", controller=False)),
        ),
        (403, lambda: identity.live_pod(CLAIMS, controlled("pod-1", "x", "ReplicaSet", "apps/v1"))),
        (403, lambda: identity.live_pod(CLAIMS, controlled("pod-1", "x", "Job", "evil.dev/v1"))),
        (410, lambda: identity.live_child({"uid": "job-1"}, None)),
        (410, lambda: identity.live_child({"uid": "job-2"}, CHILD)),
        (403, lambda: identity.live_child({"uid": "job-1"}, {"metadata": {"uid": "job-1"}})),
        (
            403,
            lambda: identity.live_child({"uid": "job-1"}, controlled("job-1", "x", "RFTJob", "evil.dev/v1")),
        ),
        (410, lambda: identity.live_job({"uid": "rft-1"}, None)),
        (410, lambda: identity.live_job({"uid": "rft-1"}, {"metadata": {"uid": "rft-2"}})),
    ],
)
def test_a_missing_or_wrong_owner_reference_is_refused(status: int, check: Callable[[], object]) -> None:
    with pytest.raises(Refused) as refusal:
        check()
    assert refusal.value.status == status


def test_a_pod_of_a_namespace_that_is_not_served_is_refused() -> None:
    identity.served(CLAIMS, ())
    identity.served(CLAIMS, ("other", "team"))
    with pytest.raises(Refused) as refusal:
        identity.served(CLAIMS, ("other",))
    assert refusal.value.status == 403


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_cached_token_reviews_expire() -> None:
    clock = Clock()
    cache = AnswerCache(clock)
    cache.put("good", CALLER)
    cache.put("bad", Refused(401, "no"))
    clock.now += 9
    assert cache.get("good") == CALLER
    assert isinstance(cache.get("bad"), Refused)
    clock.now += 2
    assert cache.get("bad") is None
    clock.now += 50
    assert cache.get("good") is None


def test_an_accepted_token_is_renewed_once_before_its_entry_expires() -> None:
    clock = Clock()
    cache = AnswerCache(clock)
    cache.put("good", CALLER)
    cache.put("bad", Refused(401, "no"))
    assert not cache.renews("good")
    assert not cache.renews("bad"), "the cached result for a refused token is not renewed before it expires"
    assert not cache.renews("never seen")
    clock.now += 45
    assert [cache.renews("good"), cache.renews("good")] == [True, False]
    assert cache.get("good") == CALLER
    cache.put("good", CALLER)
    clock.now += 45
    assert cache.get("good") == CALLER
    assert cache.renews("good")


def test_tokens_reviewed_at_the_same_time_are_renewed_at_different_times() -> None:
    clock = Clock()
    cache = AnswerCache(clock)
    tokens = [f"token {number}" for number in range(200)]
    for token in tokens:
        cache.put(token, CALLER)
    asked = []
    for _ in range(round(2 * POSITIVE_SECONDS)):
        clock.now += 0.5
        asked.append(sum(cache.renews(token) for token in tokens))
    assert sum(asked) == len(tokens)
    assert max(asked) < 20


def test_a_cached_review_is_dropped_with_its_pod() -> None:
    cache = AnswerCache(Clock())
    cache.put("good", CALLER)
    cache.forget_pod("pod-1")
    assert cache.get("good") is None


def test_the_pod_of_a_token_is_known_even_after_its_review_expired() -> None:
    clock = Clock()
    cache = AnswerCache(clock)
    cache.put("good", CALLER)
    cache.put("bad", Refused(401, "no"))
    clock.now += 3600
    assert cache.get("good") is None
    assert cache.bearer("good") == CALLER.pod_uid
    assert cache.bearer("bad") is None
    assert cache.bearer("never seen") is None


def test_a_cached_chain_of_owners_expires_and_is_dropped_with_its_pod() -> None:
    clock = Clock()
    chains = Chains(clock)
    claimed = identity.Claims(CALLER.namespace, "p", CALLER.pod_uid)
    assert chains.get(claimed) is None
    chains.put(CALLER)
    assert chains.get(claimed) == CALLER
    assert chains.get(identity.Claims("other", "p", CALLER.pod_uid)) is None
    clock.now += CHAIN_SECONDS + 1
    assert chains.get(claimed) is None
    chains.put(CALLER)
    chains.forget_pod(CALLER.pod_uid)
    assert chains.get(claimed) is None


def test_repeated_refusals_of_one_source_are_logged_rarely_with_their_count() -> None:
    clock = Clock()
    complaints = Complaints(clock)
    assert complaints.count("a", "401 no") == 0
    assert [complaints.count("a", "401 no") for _ in range(500)] == [None] * 500
    assert complaints.count("b", "401 no") == 0
    assert complaints.count("a", "413 too large") == 0
    clock.now += SAID_AGAIN_SECONDS
    assert complaints.count("a", "401 no") == 500
    assert complaints.count("a", "401 no") is None


def test_the_cache_has_a_limit_and_stores_no_token() -> None:
    cache = AnswerCache(Clock())
    for i in range(MAX_ENTRIES + 10):
        cache.put(f"token-{i}", CALLER)
    assert cache.get("token-0") is None
    assert len(vars(cache)["_answers"]) == MAX_ENTRIES
    assert "token-" not in repr(vars(cache))


def test_the_rate_limit_applies_to_each_source_separately() -> None:
    clock = Clock()
    limiter = SourceLimiter(clock, per_second=1, burst=2)
    limiter.check("a")
    limiter.check("a")
    with pytest.raises(Refused) as refusal:
        limiter.check("a")
    assert refusal.value.status == 429
    limiter.check("b")
    clock.now += 1
    limiter.check("a")


def test_a_source_that_sends_too_much_is_still_served_at_the_allowed_rate() -> None:
    clock = Clock()
    limiter, served = SourceLimiter(clock, per_second=5, burst=2), 0
    for _ in range(100):
        clock.now += 0.1
        with suppress(Refused):
            limiter.check("a")
            served += 1
    assert 50 <= served <= 52


def test_concurrent_and_waiting_token_reviews_are_limited() -> None:
    async def held(gate: ReviewGate, until: asyncio.Event, done: list[str], name: str) -> None:
        async with gate.enter():
            done.append(name)
            await until.wait()

    async def all_of_it() -> list[str]:
        gate, until, done = ReviewGate(at_once=1, waiting=1), asyncio.Event(), list[str]()
        first = asyncio.create_task(held(gate, until, done, "first"))
        await asyncio.sleep(0)
        second = asyncio.create_task(held(gate, until, done, "second"))
        await asyncio.sleep(0)
        assert done == ["first"]
        with pytest.raises(Refused) as refusal:
            await held(gate, until, done, "third")
        assert refusal.value.status == 429
        until.set()
        await asyncio.gather(first, second)
        await held(gate, until, done, "fourth")
        return done

    assert asyncio.run(all_of_it()) == ["first", "second", "fourth"]


def report(sequence: int, step: int, pod: str = "pod-1", attempt: int = 1) -> ProgressReport:
    run = {"progress": {"step": step, "attempt": attempt}}
    return ProgressReport.model_validate({"attempt": pod, "sequence": sequence, "run": run})


def refused(reports: Reports, caller: Caller, said: ProgressReport) -> int:
    with pytest.raises(Refused) as refusal:
        reports.accept(caller, said)
    return refusal.value.status


def test_sequence_and_step_must_not_decrease_within_an_attempt() -> None:
    reports = Reports()
    assert reports.accept(CALLER, report(5, 5))
    assert not reports.accept(CALLER, report(5, 5)), "a repeated report is accepted, but reported as not new"
    assert refused(reports, CALLER, report(5, 6)) == 409
    assert refused(reports, CALLER, report(4, 6)) == 409
    assert refused(reports, CALLER, report(6, 4)) == 409
    assert reports.accept(CALLER, report(6, 5))


def test_reports_of_an_older_attempt_are_refused_after_one_of_a_newer() -> None:
    reports = Reports()
    newer = Caller("team", "sums", "job-uid", "pod-2", "2026-11-22T18:05:00Z")
    assert reports.accept(CALLER, report(5, 5))
    assert reports.accept(newer, report(0, 3, "pod-2", attempt=2))
    assert refused(reports, CALLER, report(6, 6)) == 409
    assert reports.get("job-uid") is not None


def test_the_attempt_number_decides_between_pods_created_in_the_same_second() -> None:
    reports = Reports()
    twin = Caller("team", "sums", "job-uid", "pod-0", CALLER.pod_created)
    assert reports.accept(CALLER, report(5, 5))
    assert reports.accept(twin, report(0, 3, "pod-0", attempt=2))
    assert refused(reports, CALLER, report(6, 6)) == 409


def test_after_a_restart_an_older_attempt_is_refused_by_the_status() -> None:
    caller = Caller("team", "sums", "job-uid", "pod-1", "2026-11-22T18:00:00Z", known_attempt=2)
    assert refused(Reports(), caller, report(6, 6, attempt=1)) == 409


def test_a_pod_cannot_report_for_another_pod() -> None:
    assert refused(Reports(), CALLER, report(1, 1, "pod-2")) == 403


@pytest.mark.parametrize(
    "text",
    [
        "[" * 60_000,
        '{"run":' * 9_000,
        '{"attempt": "p", "sequence": ' + "1" * 60_000,
        '{"attempt": "p", "sequence": 1' + "0" * 400 + ', "run": {"progress": {}}}',
    ],
)
def test_a_report_of_deep_json_or_a_huge_number_is_invalid(text: str) -> None:
    with pytest.raises(ValidationError):
        ProgressReport.model_validate_json(text)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_a_report_with_nan_or_infinity_is_invalid(number: str) -> None:
    text = json.dumps({"attempt": "p", "sequence": 1, "run": {"progress": {}, "reward": {"latest": 0.5}}})
    with pytest.raises(ValueError, match="finite"):
        ProgressReport.model_validate_json(text.replace("0.5", number))
