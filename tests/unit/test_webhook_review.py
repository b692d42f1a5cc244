"""The webhook reports all problems of a spec at once, and advice as warnings. A stored job with an invalid
spec can still be changed.
"""

import copy
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rft_advice import Advice
from rft_api.validation import check
from rft_operator.observe import Observed
from rft_operator.reconcile import reconcile
from rft_operator.webhook import review as module
from rft_operator.webhook.review import Malformed, review
from rft_operator.webhook.warnings import MAX_WARNING, MAX_WARNINGS, fitted
from tests.admission import admission_review
from tests.manifests import manifest
from tests.violations import VIOLATIONS, Violation

Json = dict[str, Any]
BAD: dict[str, Json] = {
    "several rules": {"storage": {}, "graders": [{"name": "right"}], "suspend": True},
    "a range and a quoted number": {"sampling": {"topK": 101, "temperature": "0.7"}},
    "a null": {"training": {"maxContextLength": None}},
    "an unknown field": {"trainng": {"epochs": 2}},
    "a missing field": {"storage": None},
    "fields against each other": {
        "training": {"maxContextLength": 40000, "batchSizeTokens": 32768},
        "sampling": {"maxTokens": 16384},
        "dataset": {"uri": "./a", "configMap": {"name": "b"}},
    },
}


def job(status: Json | None = None, **spec: Any) -> Json:
    made = manifest(**spec)
    made["metadata"] |= {"namespace": "team", "uid": "u-1", "generation": 1, "resourceVersion": "5"}
    return made if status is None else {**made, "status": status}


def answer(new: Json, old: Json | None = None, **changes: Any) -> Json:
    document = admission_review(new, old, **changes)
    before = copy.deepcopy(document)
    said = review(document)
    assert document == before, "``review`` must not change its argument"
    assert (said["apiVersion"], said["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    response: Json = said["response"]
    assert response["uid"] == document["request"]["uid"]
    return response


def refused_fields(response: Json) -> list[str]:
    assert response["allowed"] is False
    return [cause["field"] for cause in response["status"]["details"]["causes"]]


def test_a_valid_job_is_allowed_without_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "advise_job", lambda job: [])
    assert answer(job()) == {"uid": answer(job())["uid"], "allowed": True}
    assert answer(job(), dryRun=True)["allowed"] is True


@pytest.mark.parametrize("spec", BAD.values(), ids=BAD)
def test_a_refusal_lists_every_problem_with_its_field(spec: Json) -> None:
    response = answer(job(**spec))
    problems = check(job(**spec)).problems
    status = response["status"]
    assert (status["status"], status["code"], status["reason"]) == ("Failure", 422, "Invalid")
    assert (status["details"]["kind"], status["details"]["name"]) == ("RFTJob", "job")
    assert [(c["field"], c["message"]) for c in status["details"]["causes"]] == list(problems)
    assert all(str(problem) in status["message"] for problem in problems)


@pytest.mark.parametrize("spec", BAD.values(), ids=BAD)
def test_the_operator_reports_the_same_problems_as_the_webhook(spec: Json) -> None:
    decision = reconcile(job(**spec), Observed(), datetime(2026, 11, 22, tzinfo=UTC))
    accepted = next(c for c in decision.status["conditions"] if c["type"] == "Accepted")
    assert (accepted["status"], accepted["reason"]) == ("False", "InvalidSpec")
    assert accepted["message"] == answer(job(**spec))["status"]["message"]


def test_a_gpu_number_other_than_the_plans_gives_a_warning() -> None:
    model, storage = {"name": "Qwen/Qwen2.5-0.5B"}, {"claimTemplate": {"size": "1Gi"}}
    response = answer(job(model=model, storage=storage, resources={"gpus": 4}))
    assert response["allowed"] is True
    assert response["warnings"] == ["spec.resources.gpus: 4 is used; the plan for nvidia-h100-80gb needs 1"]


def test_advice_is_a_warning_and_not_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    said = Advice("top-k-above-50", "spec.sampling.topK", "100 lets\nthe tail in")
    monkeypatch.setattr(module, "advise_job", lambda job: [said] if job.spec.sampling.top_k == 100 else [])
    response = answer(job(sampling={"topK": 100}))
    assert response["allowed"] is True
    assert response["warnings"] == ["spec.sampling.topK: 100 lets the tail in [top-k-above-50]"]


def test_any_update_of_a_job_that_is_being_deleted_is_allowed() -> None:
    old, new = job(storage={}), job(storage={}, suspend=True)
    new["metadata"]["deletionTimestamp"] = "2026-11-22T18:00:00Z"
    assert answer(new, old)["allowed"] is True


def test_an_update_that_keeps_an_invalid_spec_is_allowed() -> None:
    old = job(storage={}, graders=[])
    new = copy.deepcopy(old)
    new["metadata"]["labels"] = {"team": "a"}
    assert answer(new, old) == {"uid": answer(new, old)["uid"], "allowed": True}


def test_an_old_problem_gives_a_warning_and_a_new_one_a_refusal_with_all() -> None:
    old = job(storage={})
    response = answer(job(storage={}, cancel=True), old)
    assert response["allowed"] is True
    assert response["warnings"][0].startswith("spec.storage: needs exactly one of")
    worse = answer(job(storage={}, graders=[{"name": "right"}]), old)
    assert set(refused_fields(worse)) == {"spec.storage", "spec.graders[0]"}


def test_a_correction_is_allowed() -> None:
    assert answer(job(), job(storage={}))["allowed"] is True


STARTED = {"startTime": "2026-11-22T18:00:00Z", "phase": "Running"}
CLAIM = {"persistentVolumeClaim": {"claimName": "runs"}}


def test_before_the_start_everything_may_change() -> None:
    assert answer(job(training={"epochs": 2}), job())["allowed"] is True


@pytest.mark.parametrize(
    "change", [{"cancel": True}, {"suspend": True}, {"stop": {"maxSteps": 3}}, {"ttlSecondsAfterFinished": 5}]
)
def test_after_the_start_control_fields_can_still_change(change: Json) -> None:
    assert answer(job(STARTED, storage=CLAIM, **change), job(STARTED, storage=CLAIM))["allowed"] is True


def test_after_the_start_training_fields_cannot_change() -> None:
    new = job(STARTED, training={"epochs": 2}, sampling={"topK": 10})
    fields = refused_fields(answer(new, job(STARTED)))
    assert fields == ["spec.training.epochs", "spec.sampling.topK"]


def test_writing_out_a_default_is_not_a_change() -> None:
    new = job(STARTED, graders=[{"name": "right", "weight": 1.0, "numeric": {}}])
    assert answer(new, job(STARTED))["allowed"] is True


@pytest.mark.parametrize(("phase", "allowed"), [("Suspended", True), ("Running", False)])
def test_resources_and_template_can_change_while_no_pod_runs(phase: str, allowed: bool) -> None:
    status = {**STARTED, "phase": phase}
    old = job(status, storage=CLAIM, suspend=True)
    new = job(status, storage=CLAIM, suspend=True, resources={"gpus": 2})
    assert answer(new, old)["allowed"] is allowed


REVIEW = admission_review(job())


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {**REVIEW, "apiVersion": "admission.k8s.io/v1beta1"},
        {**REVIEW, "kind": "Pod"},
        {**REVIEW, "request": None},
        admission_review(job(), uid=""),
        admission_review(job(), uid=7),
        admission_review(job(), operation="DELETE"),
        admission_review(job(), resource={"group": "", "resource": "pods"}),
        admission_review(job(), resource=None),
        admission_review(job(), subResource="status"),
        admission_review(None),
        admission_review({"spec": {}}),
        admission_review(job(), operation="UPDATE"),
        admission_review({**job(), "status": "Running"}),
    ],
)
def test_a_request_that_is_not_a_review_of_an_rftjob_is_malformed(document: object) -> None:
    with pytest.raises(Malformed):
        review(document)


@pytest.mark.parametrize(
    "broken", [pytest.param(v, id=f"{rule}-{v.path}") for rule, vs in VIOLATIONS.items() for v in vs]
)
def test_a_spec_that_breaks_a_rule_across_fields_is_refused(broken: Violation) -> None:
    assert refused_fields(answer(job(**broken.spec))) == [broken.path]


@given(st.lists(st.integers(0, 2 * MAX_WARNING), max_size=60))
def test_warnings_are_cut_to_the_api_servers_limits(lengths: list[int]) -> None:
    warnings = fitted(["x" * length for length in lengths])
    assert all(len(warning) <= MAX_WARNING for warning in warnings)
    assert sum(map(len, warnings)) <= MAX_WARNINGS
    assert len(warnings) <= len(lengths)


@given(st.text(max_size=80))
def test_a_warning_is_one_line_without_control_characters(text: str) -> None:
    (warning,) = fitted([text])
    assert warning.isprintable()


def test_warnings_that_do_not_fit_are_counted() -> None:
    warnings = fitted(["x" * 300] * 20)
    assert warnings[0] == "x" * (MAX_WARNING - 1) + "…"
    assert (
        warnings[-1]
        == f"{20 - len(warnings) + 1} more warnings are left out, because of the API server's limit"
    )
    assert fitted(["x" * 256] * 16) == ["x" * 256] * 16
