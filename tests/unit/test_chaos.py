"""tests/chaos injects faults, and then runs checks. These checks find every kind of error."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rft_run.events import EndEvent, StageEvent, StepEvent
from tests.chaos.__main__ import SCENARIOS, due
from tests.chaos.jobs import STEPS
from tests.chaos.lives import Life, at_once, lives
from tests.chaos.nodes import last_end
from tests.chaos.rounds import Moments, Outcome, last_step, table, what_is_wrong

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
RECORD = [{"step": step, "reward": step / 100, "attempt": 1} for step in range(1, STEPS + 1)]


def end(**changes: Any) -> dict[str, Any]:
    history = [{"step": row["step"], "reward": row["reward"]} for row in RECORD]
    progress = {"step": STEPS, "attempt": 2, "resumedFromStep": 4}
    return {"phase": "Succeeded", "progress": progress, "reward": {"history": history}} | changes


def life(pod: str, began: int, ended: int) -> Life:
    return Life(pod, NOON + timedelta(seconds=began), NOON + timedelta(seconds=ended))


def wrong(
    found: dict[str, Any] | None = None,
    record: list[dict[str, Any]] = RECORD,
    trainers: list[Life] | None = None,
    reached: int = 5,
    attempts: int = 2,
) -> list[str]:
    outcome = Outcome("trainer killed", 1.0, attempts=attempts)
    return list(what_is_wrong(found or end(), record, trainers or [], reached, outcome))


def test_a_correct_run_has_no_findings() -> None:
    assert wrong() == []


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (wrong(end(phase="Failed", message="no luck")), "ended as Failed: no luck"),
        (wrong(end(progress={"step": 7, "attempt": 2, "resumedFromStep": 4})), "ended at step 7"),
        (wrong(record=RECORD[1:]), "metrics.jsonl has the steps"),
        (wrong(record=[*RECORD[:-1], RECORD[-1] | {"reward": 0.5}]), f"differ at steps [{STEPS}]"),
        (wrong(reached=9), "5 steps lost"),
        (wrong(trainers=[life("a", 0, 10), life("b", 8, 20)]), "at the same time for 2 s: a and b"),
    ],
)
def test_each_violation_is_found(found: list[str], said: str) -> None:
    assert len([line for line in found if said in line]) == 1


def test_the_table_has_a_line_for_each_injected_fault() -> None:
    outcomes = [
        Outcome("a", 3.0, 40.0, 1, hit=False), Outcome("a", 9.0, 50.0, 2, 1, ["no"]), Outcome("b", 1.0)
    ]  # fmt: skip
    lines = list(table(outcomes, ["a", "b", "c"]))[2:]
    assert lines == ["| a | 2 | 1 | 1 | 3 to 9 | 2 | 1 | 50 |", "| b | 1 | 1 | 1 | 1 to 1 | 0 | 0 | 0 |"]


def test_a_fault_is_repeated_until_it_has_hit_enough_jobs() -> None:
    outcomes: list[Outcome] = []
    played = []
    for number, scenario in due(list(SCENARIOS[:2]), outcomes, 2):
        played.append((number, scenario.name))
        # In the first round the second fault hits no job.
        outcomes.append(Outcome(scenario.name, 1.0, hit=played[-1] != (0, SCENARIOS[1].name)))
    first, second = (scenario.name for scenario in SCENARIOS[:2])
    assert played == [(0, first), (0, second), (1, first), (1, second), (2, second)]


def test_a_fault_that_never_hits_a_job_is_given_up() -> None:
    assert len(list(due(list(SCENARIOS[:1]), [], 2))) == 4


def test_random_moments_are_within_the_jobs_duration_in_descending_order() -> None:
    moments = Moments(0, 20.0).drawn("a", 50)
    assert moments == sorted(moments, reverse=True)
    assert 0.5 <= moments[-1] < 3
    assert 17 < moments[0] <= 20
    assert moments != Moments(1, 20.0).drawn("a", 50)


def kubelet_event(pod: str, phase: str = "Running", **state: dict[str, str]) -> dict[str, Any]:
    """Return an audit event in which the kubelet updates a pod's status.

    ``state`` is the state of the trainer's container. ``phase`` is the pod's phase.
    """
    status = {"containerStatuses": [{"name": "grader", "state": {}}, {"name": "trainer", "state": state}]}
    metadata = {"name": pod, "labels": {"rft.dev/job-uid": "u"}}
    return {
        "verb": "patch",
        "user": {"username": "system:node:n"},
        "objectRef": {"resource": "pods", "name": pod},
        "stageTimestamp": "2026-11-23T12:00:06.5Z",
        "responseObject": {"metadata": metadata, "status": status | {"phase": phase}},
    }


def removed(pod: str, user: str) -> dict[str, Any]:
    about = {"resource": "pods", "name": pod}
    return {
        "verb": "delete",
        "user": {"username": user},
        "objectRef": about,
        "stageTimestamp": "2026-11-23T12:00:07.5Z",
    }


def test_a_trainers_life_is_from_start_to_end_as_the_kubelet_reports_them() -> None:
    began, ended = "2026-11-23T12:00:02Z", "2026-11-23T12:00:05Z"
    events = [
        kubelet_event("a", waiting={"reason": "ContainerCreating"}),
        kubelet_event("a", running={"startedAt": began}),
        kubelet_event("a", terminated={"startedAt": began, "finishedAt": ended}),
    ]
    assert lives(events, "u") == [life("a", 2, 5)]
    assert lives(events, "of another") == []


def test_without_a_reported_end_a_life_ends_when_the_kubelet_deletes_the_pod() -> None:
    events = [
        kubelet_event("a", running={"startedAt": "2026-11-23T12:00:02Z"}),
        removed("a", "system:node:n"),
    ]
    assert [(one.ended - NOON).total_seconds() for one in lives(events, "u")] == [7.0]
    asked = [*events[:1], removed("a", "system:serviceaccount:kube-system:job-controller")]
    assert at_once([*lives(asked, "u"), life("b", 100, 200)]) == [("a", "b", 100)]


def test_a_life_ends_with_a_final_phase_even_if_the_container_state_is_lost() -> None:
    events = [
        kubelet_event("a", running={"startedAt": "2026-11-23T12:00:02Z"}),
        kubelet_event("a", "Failed", waiting={"reason": "ContainerCreating"}),
    ]
    assert [(one.ended - NOON).total_seconds() for one in lives(events, "u")] == [6.0]


def test_the_last_step_and_the_end_are_read_from_a_log_of_the_trainer() -> None:
    steps = [StepEvent(event="step", step=step) for step in (3, 4)]
    last = EndEvent(event="end", exit_code=76, reason="Fenced", message="replaced")
    lines = [event.as_line() for event in (StageEvent(event="stage", stage="training"), *steps, last)]
    assert (last_step("".join([*lines, "killed"])), last_step("")) == (4, 0)
    of_kubelet = "".join(f"2026-11-30T07:00:00.0Z stdout F {line}" for line in lines)
    assert json.loads(last_end(of_kubelet))["exitCode"] == 76
    assert last_end("2026-11-30T07:00:00.0Z stderr F Killed") == "the log has no end event"
