"""The ingest with real tokens: which reports it accepts, and why it refuses others."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from rft_operator.clock import rfc3339
from rft_run.report import MAX_REPORT_BYTES
from tests.integration.ingest_support import Submit, Trainer, body
from tests.integration.operator_support import PODS, RFTJOBS, Api, Operator, Run
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster


@pytest.fixture
def trainer(submit: Submit, operator: Operator, api: Api) -> Trainer:
    return Trainer(submit(), operator, api)


def test_the_response_to_a_report_has_the_current_stop_rules(trainer: Trainer) -> None:
    assert trainer.push(body(trainer.pod, 1)) == 200
    assert trainer.operator.answer == {"stop": {}}
    trainer.run.api.patch(RFTJOBS, trainer.run.name, {"spec": {"stop": {"maxSteps": 4}}})

    def said() -> bool:
        assert trainer.push(body(trainer.pod, 1)) == 200
        return bool(trainer.operator.answer == {"stop": {"maxSteps": 4}})

    wait_until("the response has the new stop rules", said)
    assert trainer.run.condition("Accepted")["status"] == "True"


def test_a_report_is_written_into_the_status(trainer: Trainer) -> None:
    assert trainer.push(body(trainer.pod, 3)) == 200
    status = trainer.run.wait_for_phase("Running")
    assert status["progress"]["step"] == 3
    assert [p["step"] for p in status["reward"]["history"]] == [1, 2, 3]
    assert trainer.run.condition("Ready")["status"] == "True"
    assert trainer.push(body(trainer.pod, 5)) == 200
    wait_until("step 5", lambda: trainer.run.status["progress"]["step"] == 5)


def test_reports_in_quick_succession_cause_one_status_write(trainer: Trainer, operator: Operator) -> None:
    assert trainer.push(body(trainer.pod, 1)) == 200
    trainer.run.wait_for_phase("Running")
    before = operator.metric("rft_status_writes_total")
    for step in range(2, 12):
        assert trainer.push(body(trainer.pod, step)) == 200
    wait_until("the last report is in the status", lambda: trainer.run.status["progress"]["step"] == 11)
    assert operator.metric("rft_status_writes_total") - before <= 4


def test_a_report_is_written_without_new_reads_of_the_cluster(trainer: Trainer, operator: Operator) -> None:
    assert trainer.push(body(trainer.pod, 1)) == 200
    trainer.run.wait_for_phase("Running")
    requests = {method: f'rft_api_requests_total{{method="{method}"' for method in ("GET", "PATCH")}

    def pushed(step: int) -> dict[str, float]:
        before = {method: operator.metric(line) for method, line in requests.items()}
        assert trainer.push(body(trainer.pod, step)) == 200
        wait_until("the step", lambda: trainer.run.status["progress"]["step"] == step)
        return {method: operator.metric(line) - before[method] for method, line in requests.items()}

    # The operator renews the Lease without a GET. A late watch event of the pod may cause a GET, so repeat
    # until a report causes none.
    steps = iter(range(2, 12))
    wait_until("the operator only patches the status", lambda: pushed(next(steps)) == {"GET": 0, "PATCH": 1})


def test_a_repeated_report_is_accepted(trainer: Trainer) -> None:
    assert trainer.push(body(trainer.pod, 3)) == 200
    assert trainer.push(body(trainer.pod, 3)) == 200


def test_many_reports_cause_one_token_review(trainer: Trainer, operator: Operator) -> None:
    assert trainer.push(body(trainer.pod, 1)) == 200
    before = operator.metric("rft_ingest_token_reviews_total")
    assert trainer.push(body(trainer.pod, 2)) == 200
    assert operator.metric("rft_ingest_token_reviews_total") == before


def test_a_report_without_a_token_is_refused(trainer: Trainer) -> None:
    assert trainer.operator.push(trainer.ca, None, body(trainer.pod)) == 401


def test_a_forged_token_is_refused(trainer: Trainer) -> None:
    assert trainer.push(body(trainer.pod), "eyJhbGciOiJub25lIn0.e30.") == 401


def test_a_token_for_another_audience_is_refused(trainer: Trainer) -> None:
    assert trainer.push(body(trainer.pod), trainer.run.token(trainer.pod, "vault")) == 401


def test_a_token_without_a_pod_is_refused(trainer: Trainer, api: Api) -> None:
    request = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"audiences": ["rft.dev/ingest"], "expirationSeconds": 3600},
    }
    made = api.create("api/v1/namespaces/{}/serviceaccounts/default/token", request)
    assert trainer.push(body(trainer.pod), made["status"]["token"]) == 403


def test_a_pod_without_the_owner_reference_is_refused_despite_our_labels(trainer: Trainer, api: Api) -> None:
    labels = trainer.pod["metadata"]["labels"]
    ours = {name: value for name, value in labels.items() if "rft" in name + value}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        # Without the Job controller's labels. Otherwise the controller would adopt the pod, and delete it
        # because the Job has one pod too many.
        "metadata": {"name": f"{trainer.run.name}-forged", "labels": ours},
        "spec": {
            "nodeSelector": {"rft.dev/none": "here"},
            "containers": [{"name": "trainer", "image": "rft-test/none:1"}],
        },
    }
    made = api.create("api/v1/namespaces/{}/pods", pod)
    forged = trainer.run.token(made)
    assert trainer.push(body(trainer.pod), forged) == 403
    api.delete("api/v1/namespaces/{}/pods", made["metadata"]["name"])


def test_a_pod_cannot_report_for_another_job(trainer: Trainer, api: Api, submit: Submit) -> None:
    original = trainer.run.job
    copy = {**original, "metadata": {"name": f"{trainer.run.name}-b"}}
    copy.pop("status", None)
    other = Run(api, api.create("apis/rft.dev/v1alpha1/namespaces/{}/rftjobs", copy))
    other.child()
    stranger = other.token(other.pod())
    assert trainer.push(body(trainer.pod), stranger) == 403
    assert "progress" not in trainer.run.status
    api.delete("apis/rft.dev/v1alpha1/namespaces/{}/rftjobs", other.name)


def test_a_deleted_pod_is_refused(trainer: Trainer, api: Api) -> None:
    assert trainer.push(body(trainer.pod, 1)) == 200
    path = f"api/v1/namespaces/{{}}/pods/{trainer.pod['metadata']['name']}"
    options = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}
    api.call("DELETE", path, options)
    # The pod has the Job controller's finalizer, so it is gone only after the controller has counted it. The
    # controller may wait some time before it does this.
    gone = trainer.pod["metadata"]["uid"]
    wait_until("the pod is deleted", lambda: _uid(api, trainer.pod["metadata"]["name"]) != gone)
    wait_until("the report is refused", lambda: trainer.push(body(trainer.pod, 2)) in (401, 410), 10)


def _uid(api: Api, pod: str) -> str:
    found = api.find(PODS, pod)
    return str(found["metadata"]["uid"]) if found else ""


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_nan_and_infinity_are_refused(trainer: Trainer, number: str) -> None:
    content = body(trainer.pod).replace(b'"latest": 0.03', f'"latest": {number}'.encode())
    assert number.encode() in content
    assert trainer.push(content) == 400


def test_a_body_that_is_not_a_report_is_refused(trainer: Trainer) -> None:
    assert trainer.push(b"{}") == 400
    assert trainer.push(b"not json") == 400
    assert trainer.push(body(trainer.pod).replace(b'"version": 1', b'"version": 2')) == 400


def test_a_field_of_a_newer_trainer_is_ignored(trainer: Trainer) -> None:
    assert trainer.push(body(trainer.pod).replace(b'"version"', b'"surprise": 1, "version"')) == 200


def test_a_report_that_is_too_large_is_refused(trainer: Trainer) -> None:
    assert trainer.push(b" " * (MAX_REPORT_BYTES + 1)) == 413
    assert trainer.push(body(trainer.pod).ljust(MAX_REPORT_BYTES)) == 200


def test_a_report_older_than_the_last_one_is_refused(trainer: Trainer) -> None:
    assert trainer.push(body(trainer.pod, 5, sequence=5)) == 200
    assert trainer.push(body(trainer.pod, 4, sequence=4)) == 409
    assert trainer.push(body(trainer.pod, 4, sequence=6)) == 409
    assert trainer.push(body(trainer.pod, 6, sequence=6)) == 200


def test_an_older_attempt_is_refused_after_a_report_of_a_newer_one(trainer: Trainer, api: Api) -> None:
    """The pod of the older attempt still runs, like a preempted pod that saves a checkpoint."""
    run, name = trainer.run, trainer.pod["metadata"]["name"]
    assert trainer.push(body(trainer.pod, 5)) == 200
    wait_until("step 5", lambda: run.status.get("progress", {}).get("step") == 5)
    api.patch(PODS, name, {"metadata": {"finalizers": ["rft.dev/slow-to-end"]}})
    api.delete(PODS, name)
    try:
        newer = run.pod()
        assert newer["metadata"]["uid"] != trainer.pod["metadata"]["uid"]
        run.start_pod(newer)
        content = json.loads(body(newer, 4, sequence=0, attempt=2))
        content["resumedFromStep"] = 3
        content["run"]["reward"]["history"] = [{"step": 4, "reward": 0.5}]
        assert trainer.push(json.dumps(content).encode(), run.token(newer)) == 200
        wait_until("step 4", lambda: run.status["progress"]["step"] == 4)
        history = {p["step"]: p["reward"] for p in run.status["reward"]["history"]}
        assert history == {1: 0.01, 2: 0.02, 3: 0.03, 4: 0.5}
        # Newer Job controllers end a deleted pod themselves. Reports of an ended pod are refused with 403.
        ended = api.get(PODS, name)["status"]["phase"] in ("Failed", "Succeeded")
        assert trainer.push(body(trainer.pod, 6)) == (403 if ended else 409)
        assert run.status["progress"]["step"] == 4
    finally:
        api.patch(PODS, name, {"metadata": {"finalizers": None}})


def test_a_trainer_without_reports_is_stalled_until_it_reports_again(trainer: Trainer) -> None:
    """While a run trains, the allowed time without a report depends on the run's seconds per step.

    The operator's setting of 30 minutes does not apply then.
    """

    def said(step: int, at: str) -> bytes:
        content = json.loads(body(trainer.pod, step, updatedAt=at))
        content["run"]["metrics"] = {"stepSeconds": 2.0}
        return json.dumps(content).encode()

    assert trainer.push(said(3, rfc3339(datetime.now(UTC) - timedelta(minutes=6)))) == 200
    trainer.run.wait_for_phase("Running")
    stalled = wait_until(
        "the run is stalled",
        lambda: c if (c := trainer.run.condition("Stalled"))["status"] == "True" else None,
    )
    assert stalled["reason"] == "NoProgress"
    assert "longer than the allowed 300 s. A step takes about 2 s." in stalled["message"]
    assert trainer.push(said(4, rfc3339(datetime.now(UTC)))) == 200
    wait_until("the run is no longer stalled", lambda: trainer.run.condition("Stalled")["status"] == "False")
    assert trainer.run.condition("Ready")["reason"] == "Training"


def test_the_operators_log_contains_no_token(trainer: Trainer) -> None:
    trainer.push(body(trainer.pod, 1))
    trainer.push(b"x", "eyJhbGciOiJub25lIn0.secret.")
    text = trainer.operator.log.read_text()
    assert trainer.token not in text
    assert "eyJ" not in text
