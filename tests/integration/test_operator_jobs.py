"""An RFTJob and its child objects: creation, success, failure, suspension, cancellation, deletion."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from rft_api import API_VERSION, KIND
from rft_api.conditions import CONDITION_TYPES
from rft_api.status import Progress
from rft_operator.cluster import ClusterError
from rft_run.config import CONFIG_FILE, RunConfig
from rft_run.report import Ending
from tests.integration.operator_support import (
    CONFIG_MAPS,
    JOBS,
    RFTJOBS,
    Api,
    Object,
    Operator,
    Run,
    has_cel,
)
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster
Submit = Callable[..., Run]
FRACTIONAL = ("temperature", "learningRate")
"""Fields with a bound that is a fraction. The CRD checks their ranges by rules in CEL."""


@pytest.mark.parametrize(
    ("section", "field"),
    [
        ("sampling", {"topK": 101}),
        ("sampling", {"temperature": 2.1}),
        ("sampling", {"numRollouts": 1}),
        ("sampling", {"maxTokens": 15}),
        ("training", {"learningRate": 1e-2}),
        ("training", {"loraRank": 9}),
        ("training", {"epochs": 11}),
        ("retry", {"limit": 21}),
    ],
)
def test_the_crd_refuses_values_out_of_range(
    api: Api, manifest: Callable[..., Object], section: str, field: dict[str, Any]
) -> None:
    if not has_cel(api) and next(iter(field)) in FRACTIONAL:
        pytest.skip("an API server without CEL does not check a range with a bound that is a fraction")
    with pytest.raises(ClusterError) as refusal:
        api.create(RFTJOBS, manifest(**{section: field}))
    assert refusal.value.status == 422
    assert next(iter(field)) in str(refusal.value)


def test_a_new_job_gets_a_child_job_a_snapshot_and_a_ca(submit: Submit, api: Api) -> None:
    run = submit(graders=[{"name": "mine", "python": {"inline": "def grade(c, r): return 1.0"}}])
    child = run.child()
    (reference,) = child["metadata"]["ownerReferences"]
    assert reference["uid"] == run.uid
    assert reference["controller"] is True
    snapshot = api.get(CONFIG_MAPS, run.child_name)
    assert snapshot["immutable"] is True
    assert RunConfig.model_validate_json(snapshot["data"][CONFIG_FILE]).job.uid == run.uid
    assert "BEGIN CERTIFICATE" in api.get(CONFIG_MAPS, f"{run.child_name}-ca")["data"]["ca.crt"]
    pod = run.pod()
    of_pod = [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
    assert {c["name"] for c in of_pod} == {"trainer", "grader"}
    assert pod["metadata"]["labels"]["rft.dev/job-uid"] == run.uid
    assert not any("kube-api-access" in v["name"] or "secret" in v for v in pod["spec"]["volumes"])
    status = wait_until(
        "the status says why no pod runs",
        lambda: run.status if run.condition("Ready").get("reason") == "Unschedulable" else None,
    )
    assert [c["type"] for c in status["conditions"]] == list(CONDITION_TYPES)
    assert status["phase"] == "Pending"
    assert status["plan"]["device"] == "cpu"
    assert status["jobName"] == run.child_name


def test_failures_are_counted_by_the_job_controller_or_by_the_operator(submit: Submit, api: Api) -> None:
    """Without podFailurePolicy the operator itself counts failures, and raises the Job's backoffLimit."""
    run = submit(retry={"limit": 2})
    spec = run.child()["spec"]
    if "podFailurePolicy" in spec:
        assert spec["backoffLimit"] == 2
    else:
        wait_until(
            "the operator raises the Job's backoffLimit",
            lambda: api.get(JOBS, run.child_name)["spec"]["backoffLimit"] == 102,
        )


def test_the_operator_adds_no_annotation_and_no_finalizer_to_an_rftjob(submit: Submit) -> None:
    run = submit()
    run.wait_for_phase("Pending")
    metadata = run.job["metadata"]
    assert "finalizers" not in metadata
    assert "annotations" not in metadata


def test_another_owners_object_with_the_childs_name_is_never_changed(
    submit: Submit, api: Api, operator: Operator
) -> None:
    operator.stop()
    run = submit()
    foreign = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": run.child_name},
        "data": {"mine": "1"},
    }
    kept = api.create(CONFIG_MAPS, foreign)
    operator.start()
    wait_until("the conflict is reported", lambda: run.condition("Ready").get("reason") == "NameConflict")
    now = api.get(CONFIG_MAPS, run.child_name)
    assert now["metadata"]["resourceVersion"] == kept["metadata"]["resourceVersion"]
    assert api.find(JOBS, run.child_name) is None


def test_an_unknown_model_is_reported_with_the_field_to_set(submit: Submit, api: Api) -> None:
    run = submit(model={"name": "org/secret"}, resources={"cpu": "1"})
    run.wait_for_phase("Invalid")
    planned = run.condition("Planned")
    assert (planned["status"], planned["reason"]) == ("False", "UnknownModel")
    assert "spec.model.parameters" in planned["message"]
    assert api.find(JOBS, run.child_name) is None
    node = {"nodeSelector": {"rft.dev/none": "here"}}
    api.patch(RFTJOBS, run.name, {"spec": {"model": {"parameters": "135M"}, "resources": node}})
    run.wait_for_phase("Pending")
    assert run.child()


def test_a_data_error_fails_the_job_at_once_and_names_the_line(submit: Submit, api: Api) -> None:
    run = submit()
    run.child()
    pod = run.pod()
    said = "train.jsonl line 7: the row has no messages"
    ending = Ending(exit_code=11, reason="DataError", message=said)
    run.end_trainer(pod, ending)
    status = run.wait_for_phase("Failed")
    failed = run.condition("Failed")
    assert (failed["status"], failed["reason"]) == ("True", "DataError")
    assert "line 7" in failed["message"]
    assert status["failedPods"] == 1
    assert status["completionTime"]
    wait_until("the Job ends", lambda: _has(api.get(JOBS, run.child_name), "Failed"), 60)
    assert pod["metadata"]["name"] in [p["metadata"]["name"] for p in run.pods()], (
        "the failed pod and its log are kept"
    )


def _has(job: Object, kind: str) -> bool:
    conditions = job.get("status", {}).get("conditions") or []
    return any(c["type"] == kind and c["status"] == "True" for c in conditions)


def test_a_failure_beyond_the_retry_limit_fails_the_job(submit: Submit) -> None:
    run = submit(retry={"limit": 0})
    run.child()
    run.end_pod(run.pod(), 1, "RuntimeError: no luck")
    run.wait_for_phase("Failed")
    assert run.condition("Failed")["reason"] == "RetryLimitReached"
    assert "no luck" in run.condition("Failed")["message"]


def test_a_temporary_failure_is_followed_by_another_attempt(submit: Submit) -> None:
    run = submit(retry={"limit": 1})
    run.child()
    first = run.pod()
    run.end_pod(first, 1, "RuntimeError: once")
    wait_until("the failure is counted", lambda: run.status["failedPods"] == 1)
    # The Job controller of 1.20 doubles its delay at every conflicting update, from 10 s to 6 minutes. So
    # only the end-to-end test waits for the next pod.
    wait_until(
        "the next attempt is reported",
        lambda: run.condition("Reconciling").get("reason") == "Retrying" or len(run.pods()) == 2,
    )
    assert run.status["phase"] in ("Pending", "Starting")
    assert run.condition("Failed")["status"] == "False"


def test_success_is_final_and_a_deleted_child_is_not_created_again(
    submit: Submit, api: Api, operator: Operator
) -> None:
    run = submit()
    run.child()
    pod = run.pod()
    progress = Progress.model_validate({"step": 12, "totalSteps": 12, "stage": "finished", "percent": 100.0})
    ending = Ending(exit_code=0, reason="Completed", message="1 epoch trained")
    run.end_trainer(pod, ending, progress)
    status = run.wait_for_phase("Succeeded")
    assert run.condition("Complete")["status"] == "True"
    assert status["progress"]["step"] == 12, "the last report comes from the termination message"
    operator.stop()
    api.delete(JOBS, run.child_name)
    wait_until("the child is deleted", lambda: api.find(JOBS, run.child_name) is None)
    operator.start()
    other = submit_again(api, run)
    other.child()
    assert api.find(JOBS, run.child_name) is None
    assert run.status == status


def submit_again(api: Api, run: Run) -> Run:
    """Create a copy of the job with another name. Return the run of the copy.

    When the copy has a child Job, the operator has processed all watch events that came before the copy.
    """
    copy = {**run.job, "metadata": {"name": f"{run.name}-2"}}
    copy.pop("status", None)
    return Run(api, api.create(RFTJOBS, copy))


def test_a_restart_of_the_operator_writes_nothing(submit: Submit, operator: Operator) -> None:
    run = submit()
    wait_until(
        "the pod is reported as unschedulable",
        lambda: run.condition("Ready").get("reason") == "Unschedulable",
    )
    before = run.job["metadata"]["resourceVersion"]
    operator.stop()
    operator.start()
    wait_until(
        "the operator has reconciled the job",
        lambda: operator.metric('rft_reconciles_total{result="done"}') > 0,
    )
    assert run.job["metadata"]["resourceVersion"] == before


def test_suspend_deletes_the_pod_and_resume_creates_another(submit: Submit, api: Api) -> None:
    run = submit()
    run.child()
    run.pod()
    api.patch(RFTJOBS, run.name, {"spec": {"suspend": True}})
    run.wait_for_phase("Suspended")
    assert run.pods() == []
    assert api.find(JOBS, run.child_name) is None
    api.patch(RFTJOBS, run.name, {"spec": {"suspend": False}})
    run.child()
    run.wait_for_phase("Pending")


def test_a_resumed_run_uses_the_resources_that_were_changed_while_suspended(submit: Submit, api: Api) -> None:
    run = submit()
    run.child()
    before = api.get(CONFIG_MAPS, run.child_name)["metadata"]["uid"]
    api.patch(RFTJOBS, run.name, {"spec": {"suspend": True}})
    run.wait_for_phase("Suspended")
    api.patch(RFTJOBS, run.name, {"spec": {"resources": {"cpu": "3"}, "template": {"labels": {"team": "a"}}}})
    wait_until("the new spec is planned", lambda: run.status["observedGeneration"] >= 3)
    assert run.condition("Accepted")["status"] == "True"
    api.patch(RFTJOBS, run.name, {"spec": {"suspend": False}})
    template = run.child()["spec"]["template"]
    assert template["spec"]["containers"][0]["resources"]["requests"]["cpu"] == "3"
    assert template["metadata"]["labels"]["team"] == "a"
    snapshot = api.get(CONFIG_MAPS, run.child_name)
    assert snapshot["metadata"]["uid"] != before
    resources = RunConfig.model_validate_json(snapshot["data"][CONFIG_FILE]).spec.resources
    assert resources is not None
    assert resources.cpu == "3"
    run.wait_for_phase("Pending")
    assert run.condition("Accepted")["reason"] == "Accepted"


def test_cancel_is_final(submit: Submit, api: Api) -> None:
    run = submit()
    run.child()
    api.patch(RFTJOBS, run.name, {"spec": {"cancel": True}})
    run.wait_for_phase("Cancelled")
    wait_until("the child is deleted", lambda: api.find(JOBS, run.child_name) is None)
    api.patch(RFTJOBS, run.name, {"spec": {"cancel": False}})
    assert run.condition("Cancelled")["reason"] == "Cancelled"
    assert run.condition("Failed")["status"] == "False"


def test_deleting_the_rftjob_deletes_its_children(submit: Submit, api: Api) -> None:
    run = submit()
    run.child()
    api.delete(RFTJOBS, run.name)
    for path, name in ((JOBS, run.child_name), (CONFIG_MAPS, run.child_name)):
        wait_until("the object is deleted", partial(_is_gone, api, path, name))


def _is_gone(api: Api, path: str, name: str) -> bool:
    return api.find(path, name) is None


def test_a_job_of_the_same_name_is_a_new_run(submit: Submit, api: Api) -> None:
    first = submit()
    first.child()
    api.delete(RFTJOBS, first.name)
    second = submit()
    assert second.child_name != first.child_name
    second.child()


def test_an_edit_after_the_start_is_reported_and_changes_nothing(submit: Submit, api: Api) -> None:
    run = submit()
    before = run.child()["metadata"]["uid"]
    # The status follows the child, and the API server's rules read only the status.
    wait_until("the status says that the job was started", lambda: run.status.get("startTime"))
    edit: Object = {"spec": {"training": {"epochs": 4}}}
    if has_cel(api):  # then the API server itself refuses the edit
        with pytest.raises(ClusterError, match=r"spec\.training cannot change") as refused:
            api.patch(RFTJOBS, run.name, edit)
        assert refused.value.status == 422
        assert run.child()["metadata"]["uid"] == before
        return
    api.patch(RFTJOBS, run.name, edit)
    wait_until(
        "the edit is reported", lambda: run.condition("Accepted").get("reason") == "ImmutableFieldChanged"
    )
    assert run.child()["metadata"]["uid"] == before


def test_events_are_posted_for_the_plan_and_each_reason(submit: Submit, api: Api) -> None:
    run = submit()

    def reasons() -> set[str]:
        selector = f"fieldSelector=involvedObject.uid%3D{run.uid}"
        items = api.call("GET", "api/v1/namespaces/{}/events?" + selector).get("items") or []
        return {event["reason"] for event in items}

    wait_until("events", lambda: {"Planned", "WaitingForPod", "Unschedulable"} <= reasons())


def test_an_expired_ttl_deletes_the_children_and_applying_again_starts_no_run(
    submit: Submit, api: Api, operator: Operator
) -> None:
    run = submit()
    run.child()
    run.end_pod(run.pod(), 11, "line 3 is not JSON")
    run.wait_for_phase("Failed")
    ended = run.status["completionTime"]
    assert api.find(JOBS, run.child_name) is not None
    # The TTL counts from the end, so a TTL that is set later may have expired already.
    api.patch(RFTJOBS, run.name, {"spec": {"ttlSecondsAfterFinished": 1}})
    wait_until("the Job is gone", lambda: api.find(JOBS, run.child_name) is None)
    for name in (run.child_name, f"{run.child_name}-ca"):
        wait_until(f"{name} is gone", lambda name=name: api.find(CONFIG_MAPS, name) is None)  # type: ignore[misc]
    wait_until("the pods are gone", lambda: not run.pods())
    api.patch(RFTJOBS, run.name, {"metadata": {"labels": {"applied": "again"}}})
    operator.stop()
    operator.start()
    spec = api.get(RFTJOBS, run.name)["spec"]
    body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": f"{run.name}-2"}, "spec": spec}
    other = Run(api, api.create(RFTJOBS, body))
    other.child()  # the child Job exists, so the operator has processed all earlier events
    api.delete(RFTJOBS, other.name)
    assert api.find(JOBS, run.child_name) is None
    assert (run.status["phase"], run.status["completionTime"]) == ("Failed", ended)
