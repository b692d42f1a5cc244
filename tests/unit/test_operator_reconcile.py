"""The decision about an RFTJob depends only on the last observed state, not on earlier ones."""

import json
import random
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from rft_api.conditions import CONDITION_TYPES
from rft_api.status import RFTJobStatus
from rft_api.validation import check
from rft_operator.clock import rfc3339
from rft_operator.decision import ChildKind, Decision
from rft_operator.failures import EVICTIONS
from rft_operator.kueue import Workload
from rft_operator.observe import Child, Observed, Pod, Received, Terminated, Waiting
from rft_operator.reconcile import baseline_to_read, reconcile
from rft_operator.stages import LOST_RECHECK_SECONDS, SIDECAR_SECONDS
from rft_planner.nodes import Node
from rft_planner.plan import plan
from rft_run.cluster_text import cluster_object
from rft_run.config import ReportTarget
from rft_run.exit_codes import PERMANENT, ExitCode
from rft_run.report import Ending
from tests.unit.reconcile_support import CHILD, NOW, POD, STARTED, UID, once, report, rftjob, said, snapshot

STARTED_AND_ENDED = replace(STARTED, child=replace(CHILD, complete=True))


def observed(*pods: Pod, child: Child | None = CHILD, received: Received | None = None) -> Observed:
    return replace(STARTED, child=child, pods=pods, received=received)


def failed_pod(code: int, number: int = 1, message: str = "", reason: str = "Error") -> Pod:
    return replace(
        POD,
        name=f"sums-x-{number}",
        uid=f"pod-{number}",
        created=f"2026-11-22T17:5{number}:00Z",
        phase="Failed",
        trainer=Terminated(code, reason, message),
        report=said(f"pod-{number}", code, message) if message else None,
    )


def condition(decision: Decision, kind: str) -> dict[str, Any]:
    return next(c for c in decision.status["conditions"] if c["type"] == kind)


def holding(decision: Decision) -> set[str]:
    return {c["type"] for c in decision.status["conditions"] if c["status"] == "True"}


ACCEPTED = {"Accepted", "Planned"}
STATES: list[tuple[str, dict[str, Any], Observed, str, str, set[str]]] = [
    ("new", rftjob(), Observed(ca_current=True), "Pending", "WaitingForPod", {*ACCEPTED, "Reconciling"}),
    ("no pod yet", rftjob(), observed(), "Pending", "WaitingForPod", {*ACCEPTED, "Reconciling"}),
    (
        "no room",
        rftjob(),
        observed(replace(POD, phase="Pending", scheduled=False, unschedulable="0/1 nodes: Insufficient cpu")),
        "Pending",
        "Unschedulable",
        {*ACCEPTED, "Reconciling"},
    ),
    (
        "no image",
        rftjob(),
        observed(replace(POD, phase="Pending", waiting=Waiting("ErrImagePull", "no such image"))),
        "Starting",
        "ImagePull",
        {*ACCEPTED, "Reconciling"},
    ),
    ("pod runs", rftjob(), observed(POD), "Starting", "Starting", {*ACCEPTED, "Reconciling"}),
    (
        "prepares",
        rftjob(),
        observed(POD, received=report(step=0, stage="preparing")),
        "Starting",
        "Starting",
        {*ACCEPTED, "Reconciling"},
    ),
    ("trains", rftjob(), observed(POD, received=report()), "Running", "Training", {*ACCEPTED, "Ready"}),
    (
        "stuck",
        rftjob(),
        observed(POD, received=report(at=NOW - timedelta(hours=2))),
        "Running",
        "NoProgress",
        {*ACCEPTED, "Ready", "Stalled"},
    ),
    (
        "retries",
        rftjob(),
        observed(failed_pod(1)),
        "Starting",
        "Retrying",
        {*ACCEPTED, "Reconciling"},
    ),
    (
        "succeeds",
        rftjob(),
        observed(replace(POD, phase="Succeeded", trainer=Terminated(0)), child=replace(CHILD, complete=True)),
        "Succeeded",
        "Completed",
        {*ACCEPTED, "Ready", "Complete"},
    ),
    (
        "bad data",
        rftjob(),
        observed(failed_pod(ExitCode.DATA, message="line 7: no messages")),
        "Failed",
        "DataError",
        {*ACCEPTED, "Stalled", "Failed"},
    ),
    (
        "invalid",
        rftjob(sampling={"topK": 500}),
        Observed(),
        "Invalid",
        "InvalidSpec",
        {"Stalled"},
    ),
    (
        "unknown model",
        rftjob(model={"name": "org/secret"}, resources={"cpu": "1"}),
        Observed(),
        "Invalid",
        "UnknownModel",
        {"Accepted", "Stalled"},
    ),
    (
        "name taken",
        rftjob(),
        Observed(conflicts=("Job sums-1",)),
        "Pending",
        "NameConflict",
        {*ACCEPTED, "Reconciling"},
    ),
    (
        "suspending",
        rftjob(suspend=True),
        observed(POD),
        "Pending",
        "Suspended",
        {*ACCEPTED, "Reconciling"},
    ),
    (
        "suspended",
        rftjob(suspend=True),
        observed(child=None),
        "Suspended",
        "Suspended",
        {*ACCEPTED, "Ready", "Suspended"},
    ),
    (
        "cancelling",
        rftjob(cancel=True),
        observed(POD),
        "Pending",
        "Cancelled",
        {*ACCEPTED, "Reconciling"},
    ),
    (
        "trainer has ended",
        rftjob(),
        observed(replace(POD, phase="Succeeded", trainer=Terminated(0))),
        "Running",
        "Training",
        {*ACCEPTED, "Ready"},
    ),
    (
        "cancelled",
        rftjob(cancel=True),
        observed(child=None),
        "Cancelled",
        "Cancelled",
        {*ACCEPTED, "Ready", "Cancelled"},
    ),
]


@pytest.mark.parametrize(
    ("document", "state", "phase", "reason", "holds"), [s[1:] for s in STATES], ids=[s[0] for s in STATES]
)
def test_each_state_has_the_expected_phase_reason_and_conditions(
    document: dict[str, Any], state: Observed, phase: str, reason: str, holds: set[str]
) -> None:
    decision = once(document, state)
    assert decision.status["phase"] == phase
    assert condition(decision, "Ready")["reason"] == reason
    assert holding(decision) == holds
    assert [c["type"] for c in decision.status["conditions"]] == list(CONDITION_TYPES)
    assert all(c["message"] for c in decision.status["conditions"])
    RFTJobStatus.model_validate(decision.status, by_alias=True, by_name=False)


@pytest.mark.parametrize(("document", "state"), [(s[1], s[2]) for s in STATES], ids=[s[0] for s in STATES])
def test_a_repeated_state_changes_nothing(document: dict[str, Any], state: Observed) -> None:
    first = once(document, state)
    # The status as the API server would return it.
    kept = json.loads(json.dumps(first.status))
    again = once({**document, "status": kept}, state, NOW + timedelta(seconds=90))
    assert again.status == kept
    assert again.notes == ()


TERMINAL = [s for s in STATES if s[0] in ("succeeds", "bad data", "cancelled")]


@pytest.mark.parametrize("end", TERMINAL, ids=[s[0] for s in TERMINAL])
@pytest.mark.parametrize("later", STATES, ids=[s[0] for s in STATES])
def test_a_finished_job_stays_finished_and_creates_nothing(end: Any, later: Any) -> None:
    status = once(end[1], end[2]).status
    decision = once({**later[1], "status": status}, later[2], NOW + timedelta(days=1))
    assert decision.status["phase"] == status["phase"]
    assert decision.status["conditions"] == status["conditions"]
    assert decision.ensure == ()


def test_after_a_restart_of_the_operator_a_run_continues_and_can_stall() -> None:
    reported = once(rftjob(), observed(POD, received=report())).status
    assert once(rftjob(reported), observed(POD)).status["phase"] == "Running"
    later = once(rftjob(reported), observed(POD), NOW + timedelta(hours=2))
    assert condition(later, "Stalled")["reason"] == "NoProgress"


def test_a_stalled_run_shows_its_last_log_lines_until_the_next_report() -> None:
    silent = observed(POD, received=report(at=NOW - timedelta(hours=2)))
    first = once(rftjob(), silent)
    assert first.log_of == POD.name
    shown = once(rftjob(), replace(silent, last_lines=("waiting for http://grader", "still waiting")))
    message = condition(shown, "Stalled")["message"]
    assert message.endswith(f"The last lines of pod {POD.name}:\nwaiting for http://grader\nstill waiting")
    assert [note.reason for note in shown.notes][-1] == "NoProgress"
    assert shown.notes[-1].warning
    again = once(rftjob(shown.status), observed(POD, received=report(step=4)))
    assert condition(again, "Stalled")["status"] == "False"
    assert [(note.reason, note.warning) for note in again.notes] == [("Training", False)]


FREE = [state for state in STATES if state not in TERMINAL]


# The state "pod runs" has no report, as after a restart of the operator. The phase then follows from the
# pod's last report in the status, so it depends on earlier states.
@pytest.mark.parametrize(
    "last", [state for state in FREE if state[0] != "pod runs"], ids=lambda state: str(state[0])
)
def test_any_order_of_states_leads_to_the_same_result(last: tuple[Any, ...]) -> None:
    """The last observed state decides the phase and which conditions are True. Earlier ones do not matter."""
    generator = random.Random(7)
    wanted = once(last[1], last[2])
    for _ in range(8):
        status: dict[str, Any] | None = None
        for seen in generator.sample(FREE, 4):
            status = once({**seen[1], **({"status": status} if status else {})}, seen[2]).status
        decision = once({**last[1], "status": status}, last[2])
        assert decision.status["phase"] == wanted.status["phase"]
        assert holding(decision) == holding(wanted)
        assert (decision.ensure, decision.delete_child) == (wanted.ensure, wanted.delete_child)


@pytest.mark.parametrize("first", STATES, ids=lambda state: str(state[0]))
def test_exclusive_conditions_never_hold_together(first: tuple[Any, ...]) -> None:
    status = once(first[1], first[2]).status
    for second in STATES:
        held = holding(once({**second[1], "status": status}, second[2]))
        assert len({"Complete", "Failed", "Cancelled"} & held) <= 1
        assert not {"Ready", "Failed"} <= held
        assert not {"Ready", "Reconciling"} <= held


def test_a_new_jobs_children_are_created_in_order() -> None:
    decision = once(rftjob(storage={"claimTemplate": {"size": "1Gi"}}), Observed())
    assert decision.ensure == (ChildKind.CONFIG, ChildKind.CA, ChildKind.CLAIM, ChildKind.JOB)
    assert "startTime" not in decision.status, "the run has no start time before its Job exists"
    assert [note.reason for note in decision.notes] == ["Planned", "WaitingForPod"]


def test_an_existing_child_is_not_created_again() -> None:
    assert once(rftjob(), observed(POD)).ensure == ()


def test_a_deleted_child_is_created_again_only_after_its_pod_is_gone() -> None:
    assert once(rftjob(), observed(POD, child=None)).ensure == ()
    assert once(rftjob(), observed(child=None)).ensure == (ChildKind.JOB,)


def test_the_ca_configmap_is_updated_while_the_child_runs() -> None:
    state = replace(observed(POD, received=report()), ca_current=False)
    assert once(rftjob(), state).ensure == (ChildKind.CA,)


def test_without_a_failure_policy_the_operator_counts_failures() -> None:
    old_server = replace(CHILD, has_failure_policy=False)
    decision = once(rftjob(), observed(POD, child=old_server))
    assert decision.patch_child == {"spec": {"backoffLimit": 103}}
    raised = replace(old_server, backoff_limit=103)
    assert once(rftjob(), observed(POD, child=raised)).patch_child is None
    upgraded = replace(raised, has_failure_policy=True)
    assert once(rftjob(), observed(POD, child=upgraded)).patch_child == {"spec": {"backoffLimit": 3}}


@pytest.mark.parametrize(("failures", "phase"), [(1, "Starting"), (2, "Starting"), (3, "Failed")])
def test_a_job_fails_after_more_failures_than_its_limit(failures: int, phase: str) -> None:
    old_server = replace(CHILD, has_failure_policy=False, backoff_limit=102)
    pods = [failed_pod(1, number) for number in range(failures)]
    state = replace(observed(*pods, child=old_server), snapshot=None)
    decision = once(rftjob(retry={"limit": 2}), state)
    assert decision.status["phase"] == phase
    assert decision.status["failedPods"] == failures
    if phase == "Failed":
        assert condition(decision, "Failed")["reason"] == "RetryLimitReached"
        assert decision.patch_child == {"spec": {"activeDeadlineSeconds": 1}}


@pytest.mark.parametrize("code", [ExitCode.PREEMPTED, ExitCode.FENCED])
def test_preemptions_do_not_count(code: int) -> None:
    pods = [failed_pod(code, number) for number in range(9)]
    decision = once(rftjob(), observed(*pods))
    assert decision.status["phase"] == "Starting"
    assert decision.status["failedPods"] == 0


@pytest.mark.parametrize("code", PERMANENT)
def test_a_permanent_failure_fails_the_job_with_and_without_a_failure_policy(code: int) -> None:
    for policy in (True, False):
        child = replace(CHILD, has_failure_policy=policy)
        decision = once(rftjob(), observed(failed_pod(code), child=child))
        assert decision.status["phase"] == "Failed"
        assert decision.patch_child == {"spec": {"activeDeadlineSeconds": 1}}


def test_a_permanent_failure_fails_the_job_while_the_grader_container_runs() -> None:
    pod = replace(failed_pod(ExitCode.DATA, message="line 7"), phase="Running")
    assert once(rftjob(), observed(pod)).status["phase"] == "Failed"


def test_the_condition_names_the_line_of_a_data_error() -> None:
    decision = once(rftjob(), observed(failed_pod(ExitCode.DATA, message="train.jsonl line 7: not JSON")))
    assert "line 7" in condition(decision, "Failed")["message"]
    assert condition(decision, "Failed")["reason"] == "DataError"
    assert decision.status["completionTime"] == rfc3339(NOW)
    assert decision.notes[-1].warning


def test_a_child_that_was_active_for_too_long_fails_the_job_and_the_message_names_the_field() -> None:
    child = replace(CHILD, failed=True, failed_reason="DeadlineExceeded", deadline=600)
    decision = once(rftjob(activeDeadlineSeconds=600), observed(child=child))
    assert decision.status["phase"] == "Failed"
    assert condition(decision, "Failed")["reason"] == "DeadlineExceeded"
    assert "spec.activeDeadlineSeconds, 600 s" in condition(decision, "Failed")["message"]


def test_an_edit_after_the_end_is_observed_and_changes_nothing_else() -> None:
    ended = once(rftjob(cancel=True), observed(child=None)).status
    edited = rftjob(ended, cancel=True, ttlSecondsAfterFinished=10**6)
    edited["metadata"]["generation"] = 7
    again = once(edited, observed(child=None)).status
    assert again == {**ended, "observedGeneration": 7}


def test_a_child_that_runs_after_the_end_of_its_job_is_stopped() -> None:
    status = once(rftjob(), observed(failed_pod(ExitCode.DATA))).status
    later = once(rftjob(status), observed(POD))
    assert later.patch_child == {"spec": {"activeDeadlineSeconds": 1}}
    patched = observed(POD, child=replace(CHILD, deadline=1))
    assert once(rftjob(status), patched).patch_child is None


def test_cancel_deletes_the_child_and_still_accepts_its_last_report() -> None:
    decision = once(rftjob(cancel=True), observed(POD))
    assert decision.delete_child
    last = once(rftjob(decision.status, cancel=True), observed(POD, received=report(step=8)))
    assert last.status["progress"]["step"] == 8
    assert last.delete_child
    assert last.status["phase"] == "Pending", "the pod still runs"
    assert "completionTime" not in last.status
    gone = once(rftjob(last.status, cancel=True), observed(child=None))
    assert (gone.status["phase"], gone.status["completionTime"]) == ("Cancelled", rfc3339(NOW))


def test_the_steps_of_a_run_do_not_fall_to_zero_while_a_new_attempt_prepares() -> None:
    trained = once(rftjob(), observed(POD, received=report(step=8))).status
    prepares = report(step=0, stage="preparing", attempt=2)
    again = once(rftjob(trained), observed(POD, received=prepares)).status
    assert (again["progress"]["step"], again["progress"]["totalSteps"]) == (8, 12)
    assert (again["progress"]["stage"], again["progress"]["attempt"]) == ("preparing", 2)
    resumed = once(rftjob(again), observed(POD, received=report(step=6, attempt=2))).status
    assert resumed["progress"]["step"] == 6


def test_suspend_deletes_the_child_and_waits_for_the_pod() -> None:
    assert once(rftjob(suspend=True), observed(POD)).delete_child
    leaving = observed(POD, child=replace(CHILD, deleting=True))
    decision = once(rftjob(suspend=True), leaving)
    assert not decision.delete_child
    assert decision.status["phase"] == "Pending"


def test_resuming_waits_until_no_pod_is_left() -> None:
    decision = once(rftjob(), observed(POD, child=replace(CHILD, deleting=True)))
    assert decision.ensure == ()
    assert once(rftjob(), observed(child=None)).ensure == (ChildKind.JOB,)


LARGER = {"resources": {"accelerator": {"name": "cpu"}, "cpu": "4"}}
AT_REST = replace(observed(child=None), pods=())


def test_a_resumed_run_uses_resources_that_were_changed_while_suspended() -> None:
    resting = once(rftjob(suspend=True, **LARGER), AT_REST)
    assert resting.status["phase"] == "Suspended"
    assert resting.ensure == ()
    assert condition(resting, "Accepted")["status"] == "True"
    decision = once(rftjob(resting.status, **LARGER), AT_REST)
    assert decision.ensure == (ChildKind.CONFIG, ChildKind.JOB)
    assert decision.spec is not None
    assert decision.spec.resources is not None
    assert decision.spec.resources.cpu == "4"
    assert decision.plan == plan(decision.spec, UID)
    assert decision.status["plan"] == decision.plan.dump()


def test_a_resumed_run_uses_a_stop_rule_that_was_added_later() -> None:
    decision = once(rftjob(stop={"maxSteps": 3}), AT_REST)
    assert decision.ensure == (ChildKind.CONFIG, ChildKind.JOB)
    assert decision.spec is not None
    assert decision.spec.stop is not None
    assert decision.spec.stop.max_steps == 3


def test_edits_together_with_one_of_an_immutable_field_are_ignored() -> None:
    decision = once(rftjob({"startTime": rfc3339(NOW)}, training={"epochs": 5}, **LARGER), AT_REST)
    assert decision.ensure == (ChildKind.JOB,)
    assert decision.spec == STARTED.snapshot.spec if STARTED.snapshot else False
    message = condition(decision, "Accepted")["message"]
    assert "spec.training.epochs" in message
    assert "spec.resources.cpu" in message


def test_an_edit_of_resources_while_a_pod_runs_is_reported_and_ignored() -> None:
    decision = once(rftjob(**LARGER), observed(POD, received=report()))
    assert condition(decision, "Accepted")["reason"] == "ImmutableFieldChanged"
    assert decision.ensure == ()


def test_resources_without_a_plan_can_be_corrected_by_suspending_again() -> None:
    hopeless = {"resources": {"accelerator": {"name": "tiny", "memory": "16Mi"}}}
    decision = once(rftjob(**hopeless), AT_REST)
    assert decision.status["phase"] == "Invalid"
    assert condition(decision, "Planned")["status"] == "False"
    assert decision.ensure == ()
    again = once(rftjob(decision.status, suspend=True, **hopeless), AT_REST)
    assert again.status["phase"] == "Suspended"
    assert condition(again, "Planned")["status"] == "False"
    assert once(rftjob(again.status), AT_REST).ensure == (ChildKind.JOB,)


def test_an_edit_after_the_start_is_reported_and_ignored() -> None:
    decision = once(rftjob(training={"epochs": 5}), observed(POD, received=report()))
    assert condition(decision, "Accepted")["status"] == "False"
    assert condition(decision, "Accepted")["reason"] == "ImmutableFieldChanged"
    assert "spec.training.epochs" in condition(decision, "Accepted")["message"]
    assert decision.status["phase"] == "Running"
    assert decision.spec is not None
    assert decision.spec.training.epochs == 1


def test_an_invalid_edit_does_not_end_a_run() -> None:
    decision = once(rftjob(sampling={"topK": 500}), observed(POD, received=report()))
    assert decision.status["phase"] == "Running"
    assert condition(decision, "Accepted")["status"] == "False"


@pytest.mark.parametrize("switch", [{"stop": {"maxSteps": 3}}, {"ttlSecondsAfterFinished": 60}])
def test_stop_rules_and_ttl_may_change_while_a_pod_runs(switch: dict[str, Any]) -> None:
    assert condition(once(rftjob(**switch), observed(POD)), "Accepted")["status"] == "True"


def test_a_job_with_a_corrected_spec_starts() -> None:
    rejected = once(rftjob(sampling={"topK": 500}), Observed(ca_current=True))
    assert "spec.sampling.topK" in condition(rejected, "Accepted")["message"]
    decision = once(rftjob(rejected.status), Observed(ca_current=True))
    assert decision.status["phase"] == "Pending"
    assert ChildKind.JOB in decision.ensure


def test_the_condition_complete_has_the_reason_of_an_early_end() -> None:
    ending = Ending(exit_code=0, reason="TargetRewardReached", message="held-out reward 0.91")
    pod = replace(POD, phase="Succeeded", trainer=Terminated(0))
    state = observed(pod, child=replace(CHILD, complete=True), received=report(ending=ending))
    complete = condition(once(rftjob(), state), "Complete")
    assert (complete["reason"], complete["message"]) == ("TargetRewardReached", "held-out reward 0.91")


def test_a_lost_last_report_is_read_from_the_termination_message() -> None:
    final = report(step=12, stage="finished").report
    pod = replace(POD, phase="Succeeded", trainer=Terminated(0), report=final)
    state = observed(pod, child=replace(CHILD, complete=True), received=report(step=11))
    assert once(rftjob(), state).status["progress"]["step"] == 12


def test_the_last_report_of_an_older_attempt_does_not_replace_a_newer_one() -> None:
    old = replace(failed_pod(1, 1), report=report(failed_pod(1, 1), step=10).report)
    new = replace(POD, uid="pod-2", created="2026-11-22T17:59:00Z")
    received = report(new, step=6, attempt=2)
    assert once(rftjob(), observed(old, new, received=received)).status["progress"]["step"] == 6
    after_restart = observed(old, new)
    status = {"progress": {"step": 6, "attempt": 2}}
    assert once(rftjob(status), after_restart).status["progress"]["step"] == 6


def test_nothing_changes_for_a_job_that_is_being_deleted() -> None:
    document = rftjob({"phase": "Running"})
    document["metadata"]["deletionTimestamp"] = rfc3339(NOW)
    decision = once(document, observed(POD))
    assert decision == Decision(cluster_object({"phase": "Running"}))


def tuned(baseline: str = "base", status: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    document = rftjob(status, **changes)
    document["metadata"]["annotations"] = {"rft.dev/baseline": baseline}
    return document


def test_the_status_has_the_differences_from_the_baseline() -> None:
    document = tuned(training={"epochs": 2})
    assert baseline_to_read(document) == "base"
    decision = once(document, Observed(ca_current=True, baseline=rftjob()))
    wanted = {"job": "base", "changes": [{"path": "spec.training.epochs", "from": "1", "to": "2"}]}
    assert decision.status["baseline"] == wanted
    RFTJobStatus.model_validate(decision.status, by_alias=True, by_name=False)


def test_the_baseline_is_compared_until_the_start_and_then_kept() -> None:
    first = once(tuned(), Observed(ca_current=True, baseline=rftjob(training={"epochs": 3}))).status
    started = {**first, "startTime": rfc3339(NOW)}
    later = tuned(status=started)
    assert baseline_to_read(later) is None
    assert once(later, observed(POD)).status["baseline"] == started["baseline"]
    waiting = tuned(status={**started, "startTime": None}, training={"epochs": 3})
    del waiting["status"]["startTime"]
    assert baseline_to_read(waiting) == "base"


def test_a_missing_baseline_is_reported_and_read_again_later() -> None:
    status = once(tuned(), Observed(ca_current=True)).status
    assert status["baseline"] == {"job": "base", "message": "There is no RFTJob base in this namespace."}
    assert baseline_to_read(tuned(status=status)) == "base"
    found = once(tuned(status=status), replace(STARTED, baseline=rftjob())).status
    assert found["baseline"] == {"job": "base", "changes": []}


def test_a_changed_baseline_is_compared_and_a_removed_one_leaves_the_status() -> None:
    status = once(tuned(), Observed(ca_current=True, baseline=rftjob())).status
    assert baseline_to_read(tuned("other", status=status)) == "other"
    assert "baseline" not in once(rftjob(status), STARTED).status


def test_a_running_job_is_requeued_for_the_time_when_it_could_stall() -> None:
    decision = once(rftjob(), observed(POD, received=report(at=NOW - timedelta(minutes=10))))
    assert decision.requeue_after == pytest.approx(20 * 60)


def over(ttl: int | None, ended: datetime) -> dict[str, Any]:
    status = reconcile(rftjob(), replace(STARTED, child=replace(CHILD, complete=True)), ended).status
    changes = {"ttlSecondsAfterFinished": ttl} if ttl is not None else {}
    return rftjob(status, **changes)


def test_an_expired_ttl_deletes_the_children_but_not_the_claim() -> None:
    left = replace(STARTED, child=replace(CHILD, complete=True), ca_exists=True, claim_exists=True)
    decision = reconcile(over(60, NOW), left, NOW + timedelta(seconds=60))
    assert decision.remove == (ChildKind.JOB, ChildKind.CONFIG, ChildKind.CA)
    assert decision.status["phase"] == "Succeeded"
    gone = reconcile(over(60, NOW), Observed(), NOW + timedelta(hours=9))
    assert (gone.remove, gone.ensure, gone.requeue_after) == ((), (), None)


def test_the_ttl_counts_from_the_end_and_the_job_is_requeued_for_it() -> None:
    decision = reconcile(over(60, NOW), STARTED_AND_ENDED, NOW + timedelta(seconds=18))
    assert (decision.remove, decision.requeue_after) == ((), 42)
    ending = reconcile(rftjob(ttlSecondsAfterFinished=60), STARTED_AND_ENDED, NOW)
    assert (ending.status["phase"], ending.requeue_after) == ("Succeeded", 60), (
        "the job must be requeued for its TTL, because there may be no other event"
    )


@pytest.mark.parametrize("ttl", [None, True, -1, "60"])
def test_without_a_valid_ttl_the_children_are_kept(ttl: Any) -> None:
    document = over(None, NOW)
    if ttl is not None:
        document["spec"]["ttlSecondsAfterFinished"] = ttl
    decision = reconcile(document, STARTED_AND_ENDED, NOW + timedelta(days=900))
    assert (decision.remove, decision.requeue_after) == ((), None)


def test_a_child_that_runs_after_the_end_is_ended_before_any_deletion() -> None:
    decision = reconcile(over(0, NOW), STARTED, NOW + timedelta(seconds=5))
    assert decision.remove == ()
    assert decision.patch_child == {"spec": {"activeDeadlineSeconds": 1}}


@pytest.mark.parametrize("pods", [(), (POD,), (replace(POD, deleting=True),)])
def test_a_suspended_child_is_reported_as_queued_and_not_changed(pods: tuple[Pod, ...]) -> None:
    held = replace(STARTED, child=replace(CHILD, suspended=True), pods=pods)
    decision = reconcile(rftjob(), held, NOW)
    assert (decision.status["phase"], decision.patch_child, decision.delete_child) == ("Queued", None, False)
    ready = next(c for c in decision.status["conditions"] if c["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "Queued")
    admitted = reconcile(rftjob(decision.status), STARTED, NOW)
    assert admitted.status["phase"] == "Pending"


def test_message_condition_and_event_say_why_a_child_waits_in_its_queue() -> None:
    document = rftjob()
    document["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "gpus"}
    child = replace(CHILD, suspended=True, queue=(("kueue.x-k8s.io/queue-name", "gpus"),))
    held = replace(STARTED, child=child)
    unknown = reconcile(document, held, NOW)
    assert unknown.status["message"] == "The child Job is suspended until LocalQueue gpus admits it."
    missing = Workload("w", pending_reason="Inadmissible", pending_message="LocalQueue gpus doesn't exist")
    document["status"] = unknown.status
    waiting = reconcile(document, replace(held, workload=missing), NOW)
    ready = next(c for c in waiting.status["conditions"] if c["type"] == "Ready")
    (note,) = waiting.notes
    assert (waiting.status["phase"], ready["reason"], note.reason, note.warning) == (
        "Queued", "Inadmissible", "Inadmissible", True,
    )  # fmt: skip
    for text in (waiting.status["message"], ready["message"], note.message):
        assert "LocalQueue gpus doesn't exist" in text


@pytest.mark.parametrize("wanted", [{}, {"kueue.x-k8s.io/queue-name": "right"}])
def test_a_corrected_queue_label_is_set_on_the_waiting_child(wanted: dict[str, str]) -> None:
    document = rftjob()
    document["metadata"]["labels"] = wanted
    wrong = replace(CHILD, suspended=True, queue=(("kueue.x-k8s.io/queue-name", "wrong"),))
    decision = reconcile(document, replace(STARTED, child=wrong), NOW)
    labels = {"kueue.x-k8s.io/queue-name": None, **wanted}
    assert decision.patch_child == {"metadata": {"labels": labels}}
    runs = replace(wrong, suspended=False)
    assert reconcile(document, replace(STARTED, child=runs), NOW).patch_child is None


def test_a_refused_child_object_is_reported_and_tried_again() -> None:
    first = reconcile(rftjob(), Observed(), NOW)
    assert ChildKind.JOB in first.ensure
    said = "Job sums-5b0d2ac7 cannot be created: 500: failed calling webhook."
    again = reconcile(rftjob(first.status), Observed(refused=said), NOW)
    assert again.ensure == first.ensure
    assert again.status["message"] == f"{said} The operator tries again."
    assert [note.reason for note in again.notes] == ["FailedCreate"]
    made = reconcile(rftjob(again.status), STARTED, NOW)
    assert "cannot be created" not in made.status["message"]


def test_a_refused_child_object_is_reported_with_the_field_to_change() -> None:
    said = (
        'PersistentVolumeClaim sums-x cannot be created: 403: persistentvolumeclaims "sums-x" is forbidden:'
        " exceeded quota: few, requested: requests.storage=5Gi, used: requests.storage=0, limited:"
        " requests.storage=1Gi."
    )
    document = rftjob({"phase": "Pending"}, storage={"claimTemplate": {"size": "5Gi"}})
    decision = once(document, Observed(refused=said))
    assert decision.status["message"] == (
        f"{said} Lower spec.storage.claimTemplate.size, wait until other objects are gone, or raise the"
        " ResourceQuota few. The operator tries again."
    )


LOST = Node("worker-2", silent_since="2026-11-22T17:58:00Z", schedulable=False)


@pytest.mark.parametrize("deleting", [False, True])
def test_a_pod_on_a_lost_node_is_reported_with_commands_for_a_person(deleting: bool) -> None:
    pod = replace(POD, node="worker-2", ready=False, deleting=deleting)
    facts = replace(observed(pod), nodes=(LOST, Node("worker-1")))
    decision = reconcile(rftjob(), facts, NOW)
    ready, stalled = (
        next(c for c in decision.status["conditions"] if c["type"] == kind) for kind in ("Ready", "Stalled")
    )
    assert (ready["reason"], stalled["status"], stalled["reason"]) == ("NodeLost", "True", "NodeLost")
    for text in (
        "worker-2",
        "2026-11-22T17:58:00Z",
        POD.name,
        "kubectl delete node worker-2",
        "out-of-service",
    ):
        assert text in decision.status["message"]
    assert decision.requeue_after == LOST_RECHECK_SECONDS
    assert [note.warning for note in decision.notes if note.reason == "NodeLost"] == [True]
    back = reconcile(rftjob(decision.status), observed(POD), NOW)
    assert "worker-2" not in back.status["message"]


@pytest.mark.parametrize("node", ["worker-1", ""])
def test_a_lost_node_without_a_pod_of_the_run_is_not_reported(node: str) -> None:
    facts = replace(observed(replace(POD, node=node)), nodes=(LOST, Node("worker-1")))
    assert "worker-2" not in reconcile(rftjob(), facts, NOW).status["message"]


def test_suspend_and_restart_report_that_they_wait_for_a_pod_on_a_lost_node() -> None:
    pod = replace(POD, node="worker-2", deleting=True)
    facts = replace(observed(pod), nodes=(LOST,))
    suspending = reconcile(rftjob(suspend=True), facts, NOW)
    assert suspending.delete_child
    assert "kubectl delete node worker-2" in suspending.status["message"]
    leaving = reconcile(rftjob(), replace(facts, child=None), NOW)
    assert "kubectl delete node worker-2" in leaving.status["message"]


def test_a_queued_job_can_be_suspended_and_cancelled() -> None:
    held = replace(STARTED, child=replace(CHILD, suspended=True))
    assert reconcile(rftjob(suspend=True), held, NOW).delete_child
    assert reconcile(rftjob(cancel=True), held, NOW).delete_child


def test_a_queue_that_chose_another_kind_of_gpu_is_reported_while_the_pod_waits() -> None:
    document = rftjob(resources={"accelerator": {"name": "nvidia-l40s-48gb"}})
    sent = replace(CHILD, node_labels=(("nvidia.com/gpu.product", "Tesla-T4"),))
    state = replace(observed(child=sent), snapshot=snapshot(document))
    message = once(document, state).status["message"]
    assert message.startswith("Waiting for the pod. The pod needs nodes with ")


def test_a_preempted_attempt_is_not_reported_as_failed() -> None:
    taken = replace(POD, phase="Failed", trainer=Terminated(75, "Error", "asked to stop while sampling"))
    message = once(rftjob(), observed(taken)).status["message"]
    assert message == (
        "Attempt 1 was preempted or lost: asked to stop while sampling. "
        "It does not count as failed, and the next attempt starts."
    )


def test_a_run_that_is_evicted_again_and_again_fails_and_its_job_is_ended() -> None:
    full = "The node was low on resource: ephemeral-storage."
    pods = [
        replace(POD, uid=f"u-{i}", phase="Failed", reason="Evicted", message=full) for i in range(EVICTIONS)
    ]
    again = once(rftjob(), observed(*pods[1:], POD))
    assert again.status["phase"] != "Failed"
    decision = once(rftjob(), observed(*pods))
    assert decision.status["phase"] == "Failed"
    assert condition(decision, "Failed")["reason"] == "Evicted"
    assert decision.patch_child == {"spec": {"activeDeadlineSeconds": 1}}


def test_a_run_that_trains_is_not_ended_for_evictions_that_an_older_release_allowed() -> None:
    full = "The node was low on resource: memory."
    pods = [
        replace(POD, uid=f"u-{i}", phase="Failed", reason="Evicted", message=full) for i in range(EVICTIONS)
    ]
    assert once(rftjob(), observed(*pods, POD)).status["phase"] != "Failed"


def test_a_native_sidecar_that_waits_to_be_started_again_does_not_hide_that_the_run_trains() -> None:
    crashed = replace(POD, waiting=Waiting("CrashLoopBackOff", "back-off 10s"), started=POD.created)
    state = replace(observed(crashed), received=report())
    assert once(rftjob(), state).status["phase"] == "Running"


def test_a_checked_document_is_not_checked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, checked = once(rftjob(), STARTED), check(rftjob())
    monkeypatch.setattr("rft_operator.reconcile.check", None)
    assert reconcile(rftjob(), STARTED, NOW, checked=checked) == wanted


def test_every_field_can_be_corrected_while_the_job_was_never_created() -> None:
    refused = replace(AT_REST, refused="Job sums-x cannot be created: 403: exceeded quota: few.")
    decision = once(rftjob({"phase": "Pending"}, training={"epochs": 5}, **LARGER), refused)
    assert decision.ensure == (ChildKind.CONFIG, ChildKind.JOB)
    assert decision.spec is not None
    assert decision.spec.training.epochs == 5
    assert condition(decision, "Accepted")["status"] == "True"


def test_the_run_starts_when_its_job_exists() -> None:
    assert once(rftjob({"phase": "Pending"}), observed()).status["startTime"] == CHILD.created


DEADLINE = {"stop": {"deadline": rfc3339(NOW)}}
UNSCHEDULED = replace(POD, phase="Pending", scheduled=False, unschedulable="0/1 nodes: Insufficient cpu")


@pytest.mark.parametrize("state", [Observed(ca_current=True), observed(), observed(UNSCHEDULED)])
def test_a_run_that_made_no_step_before_its_deadline_is_invalid_until_the_deadline_is_moved(
    state: Observed,
) -> None:
    early = once(rftjob(**DEADLINE), state, NOW - timedelta(seconds=90))
    assert early.status["phase"] == "Pending"
    assert early.requeue_after == 90
    late = once(rftjob(early.status, **DEADLINE), state)
    assert (late.status["phase"], condition(late, "Ready")["reason"]) == ("Invalid", "DeadlineReached")
    assert condition(late, "Failed")["status"] == "False", "a user can still move the deadline"
    assert late.delete_child == (state.child is not None)
    moved = once(rftjob(late.status, stop={"deadline": "2027-01-01T00:00:00Z"}), Observed(ca_current=True))
    assert ChildKind.JOB in moved.ensure


def test_a_run_with_steps_is_ended_by_its_trainer_after_the_deadline() -> None:
    status = {"progress": {"step": 3}, "startTime": rfc3339(NOW)}
    assert once(rftjob(status, **DEADLINE), observed(UNSCHEDULED)).status["phase"] == "Pending"
    assert once(rftjob(**DEADLINE), observed(POD)).status["phase"] == "Starting"


def test_a_trainer_that_never_reports_is_stalled_after_the_time_without_progress() -> None:
    silent = replace(POD, started=rfc3339(NOW - timedelta(seconds=1700)))
    assert STARTED.snapshot is not None
    target = ReportTarget(url="https://operator", ca_file="/ca", token_file="/token")
    reporting = STARTED.snapshot.model_copy(update={"report": target})
    waits = replace(observed(silent), snapshot=reporting)
    soon = once(rftjob(), waits)
    assert (soon.status["phase"], soon.requeue_after) == ("Starting", 100)
    assert condition(soon, "Stalled")["status"] == "False"
    later = once(rftjob(), waits, NOW + timedelta(seconds=101))
    assert condition(later, "Stalled")["status"] == "True"
    assert "reports do not arrive" in condition(later, "Stalled")["message"]
    assert later.log_of == POD.name
    lines = replace(waits, last_lines=("cannot resolve huggingface.co",))
    said = condition(once(rftjob(), lines, NOW + timedelta(seconds=101)), "Stalled")["message"]
    assert said.endswith("cannot resolve huggingface.co")


def test_a_run_that_ended_well_at_its_deadline_is_not_failed_before_its_job_completes() -> None:
    ended = replace(POD, phase="Succeeded", trainer=Terminated(0))
    assert once(rftjob(**DEADLINE), observed(ended)).status["phase"] == "Running"


def test_steps_that_only_the_report_knows_count_at_the_deadline() -> None:
    received = report(step=30)
    decision = once(rftjob(**DEADLINE), replace(observed(UNSCHEDULED), received=received))
    assert decision.status["phase"] == "Pending"
    assert not decision.delete_child


def test_rewards_and_usage_stay_while_a_new_attempt_prepares() -> None:
    curve = {"latest": 0.5, "best": 0.5, "bestStep": 8, "history": [{"step": 8, "reward": 0.5}]}
    trained = once(rftjob(), observed(POD, received=report(step=8))).status
    known = {**trained, "reward": curve, "usage": {"gpuSeconds": 7000}}
    again = once(rftjob(known), observed(POD, received=report(step=0, stage="preparing", attempt=2))).status
    assert again["reward"]["history"] == curve["history"]
    assert again["usage"]["gpuSeconds"] == 7000


def test_without_an_ingest_a_silent_trainer_is_not_stalled() -> None:
    quiet = replace(POD, started=rfc3339(NOW - timedelta(hours=2)))
    assert STARTED.snapshot is not None
    assert STARTED.snapshot.report is None
    assert condition(once(rftjob(), observed(quiet)), "Stalled")["status"] == "False"


def held_open(code: int, ended: datetime = NOW, *beside: str) -> Pod:
    """Return a running pod whose trainer ended at ``ended`` with exit code ``code``.

    ``beside`` are the names of further containers, which other programs added and which still run. The
    default is one container, ``istio-proxy``.
    """
    trainer = Terminated(code, at=rfc3339(ended))
    return replace(POD, trainer=trainer, beside=beside or ("istio-proxy",))


def test_a_container_that_others_added_does_not_keep_a_finished_job_running() -> None:
    ended = NOW - timedelta(seconds=SIDECAR_SECONDS)
    decision = once(rftjob(), observed(held_open(0, ended), received=report(step=12)))
    assert decision.status["phase"] == "Succeeded"
    assert decision.patch_child == {"spec": {"activeDeadlineSeconds": 1}}


def test_a_container_that_others_added_has_some_seconds_to_end_by_itself() -> None:
    decision = once(rftjob(), observed(held_open(0), received=report(step=12)))
    assert decision.status["phase"] == "Running"
    assert decision.patch_child is None
    assert decision.requeue_after == SIDECAR_SECONDS


def test_a_pod_without_other_containers_is_left_to_the_job_controller() -> None:
    pod = replace(held_open(0, NOW - timedelta(hours=1)), beside=())
    decision = once(rftjob(), observed(pod, received=report(step=12)))
    assert decision.status["phase"] == "Running"
    assert decision.patch_child is None


def test_a_container_that_holds_up_the_next_attempt_is_named_with_what_helps() -> None:
    decision = once(rftjob(), observed(held_open(1, NOW, "istio-proxy", "logger")))
    ready = next(c for c in decision.status["conditions"] if c["type"] == "Ready")
    still = "containers that another program added to this pod still run: istio-proxy, logger"
    assert still in ready["message"]
    assert "spec.template.annotations" in ready["message"]
