"""How reports change a status: the reward curve, fields left out of reports, and times of conditions."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rft_api.conditions import Gate
from rft_api.status import MAX_HISTORY, Reward, RewardPoint, RFTJobStatus, thin
from rft_operator.observe import Observed, Pod, Received, Terminated
from rft_operator.status import (
    Summary,
    conditions,
    is_behind,
    merge_patch,
    newest_report,
    overlaid,
    with_report,
)
from rft_run.report import ProgressReport

NOW = datetime(2026, 11, 22, 18, 0, tzinfo=UTC)
YES = Gate(True, "Accepted", "fine")


def report(
    step: int, points: list[tuple[int, float]] | None, attempt: int = 1, resumed: int = 0
) -> ProgressReport:
    run: dict[str, Any] = {"progress": {"step": step, "attempt": attempt, "stage": "training"}}
    if points is not None:
        run["reward"] = {"latest": points[-1][1], "history": [{"step": s, "reward": r} for s, r in points]}
    return ProgressReport.model_validate(
        {"attempt": f"pod-{attempt}", "sequence": step, "resumedFromStep": resumed, "run": run}
    )


def steps(status: dict[str, Any]) -> list[int]:
    return [point["step"] for point in status["reward"]["history"]]


def curve(*found: int) -> list[tuple[int, float]]:
    return [(step, step / 100) for step in found]


def test_a_single_report_is_enough_to_complete_the_status() -> None:
    every = with_report({}, report(3, curve(1, 2, 3)))
    every = with_report(every, report(5, curve(1, 2, 3, 4, 5)))
    assert with_report({}, report(5, curve(1, 2, 3, 4, 5))) == every


def test_the_same_report_again_changes_nothing() -> None:
    once = with_report({}, report(3, curve(1, 2, 3)))
    assert with_report(once, report(3, curve(1, 2, 3))) == once


def test_a_newer_attempt_removes_points_after_the_step_it_resumed_from() -> None:
    status = with_report({}, report(9, curve(*range(1, 10))))
    status = with_report(status, report(7, [(6, 0.6), (7, 0.7)], attempt=2, resumed=5))
    assert steps(status) == [1, 2, 3, 4, 5, 6, 7]
    assert status["reward"]["history"][5]["reward"] == 0.6


def test_a_newer_attempt_without_a_curve_removes_these_points_too() -> None:
    status = with_report({}, report(9, curve(*range(1, 10))))
    status = with_report(status, report(5, None, attempt=2, resumed=5))
    assert steps(status) == [1, 2, 3, 4, 5]


def test_points_left_out_by_a_shortened_last_report_are_kept() -> None:
    status = with_report({}, report(8, curve(*range(1, 9))))
    status = with_report(status, report(9, curve(7, 8, 9)))
    assert steps(status) == list(range(1, 10))


def test_an_older_attempt_changes_nothing() -> None:
    status = with_report({}, report(7, curve(6, 7), attempt=2, resumed=5))
    assert with_report(status, report(9, curve(8, 9), attempt=1)) == status


def test_a_new_attempt_without_a_volume_starts_the_curve_again() -> None:
    status = with_report({}, report(9, curve(*range(1, 10))))
    again = report(1, curve(1), attempt=1, resumed=0)
    assert not is_behind(status, again)
    assert steps(with_report(status, again)) == [1]


def test_fields_left_out_by_a_shortened_report_are_kept() -> None:
    status = {**with_report({}, report(3, curve(1, 2, 3))), "evaluation": {"rows": 32}}
    assert with_report(status, report(4, curve(4)))["evaluation"] == {"rows": 32}


def test_unknown_fields_of_another_operator_version_are_kept() -> None:
    status = overlaid({"phase": "Running", "ofTomorrow": 1}, RFTJobStatus(phase="Succeeded"))
    assert status == {"phase": "Succeeded", "ofTomorrow": 1}


def test_the_curve_has_at_most_fifty_points_including_both_ends() -> None:
    points = [RewardPoint(step=i, reward=0.5) for i in range(1, 400)]
    kept = thin(points)
    assert len(kept) == MAX_HISTORY
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert len({p.step for p in kept}) == MAX_HISTORY
    Reward(history=kept)


def test_a_condition_keeps_its_transition_time_while_its_status_is_unchanged() -> None:
    def at(minutes: int, phase: Any, before: list[dict[str, Any]]) -> list[dict[str, Any]]:
        summary = Summary(phase, "Training", f"{minutes}", YES, YES)
        return [c.dump() for c in conditions(summary, before, 1, NOW + timedelta(minutes=minutes))]

    first = at(0, "Starting", [])
    second = at(1, "Running", first)
    third = at(2, "Running", second)
    times = [{c["type"]: c["lastTransitionTime"] for c in cs} for cs in (first, second, third)]
    assert times[0]["Accepted"] == times[2]["Accepted"]
    assert times[0]["Ready"] != times[1]["Ready"] == times[2]["Ready"]


def pod(number: int, **facts: Any) -> Pod:
    return Pod(f"p{number}", f"pod-{number}", f"2026-11-22T18:0{number}:00Z", phase="Running", **facts)


def test_the_last_report_of_the_newest_attempt_counts() -> None:
    received = Received(report(5, curve(5)), "pod-1", pod(1).created)
    ended = pod(1, trainer=Terminated(0), report=report(6, curve(6)))
    assert newest_report(Observed(pods=(ended,), received=received)) == ended.report
    assert newest_report(Observed(pods=(ended, pod(2)))) is None
    newer = Received(report(2, curve(2), attempt=2), "pod-2", pod(2).created)
    assert newest_report(Observed(pods=(ended, pod(2)), received=newer)) == newer.report


def test_a_termination_message_with_another_pods_report_is_ignored() -> None:
    forged = pod(1, trainer=Terminated(0), report=report(6, curve(6), attempt=9))
    assert newest_report(Observed(pods=(forged,))) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({}, {"a": 1}),
        ({"a": 1}, {}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "d": 3}}),
        ({"a": [1, 2]}, {"a": [2]}),
        ({"a": 1}, {"a": {"b": 1}}),
        ({"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 1}}}),
    ],
)
def test_applying_the_merge_patch_gives_the_new_status(old: dict[str, Any], new: dict[str, Any]) -> None:
    def apply(target: Any, patch: Any) -> Any:
        if not isinstance(patch, dict):
            return patch
        result = dict(target) if isinstance(target, dict) else {}
        for key, value in patch.items():
            if value is None:
                result.pop(key, None)
            else:
                result[key] = apply(result.get(key), value)
        return result

    patch = merge_patch(old, new)
    assert apply(old, patch) == new
    assert (patch == {}) == (old == new)
