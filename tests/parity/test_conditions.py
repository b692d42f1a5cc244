"""The operator and ``rft run`` write the same conditions for a phase. kstatus reads them as documented."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest

from rft_api.conditions import ACCEPTED as SPEC_ACCEPTED
from rft_api.conditions import (
    CONDITION_TYPES,
    PHASE_CONDITIONS,
    TERMINAL_CONDITIONS,
    TERMINAL_PHASES,
    Phase,
    Reason,
    planned_by,
)
from rft_api.effective import effective
from rft_api.job import RFTJobSpec
from rft_api.status import RunStatus
from rft_operator.clock import rfc3339
from rft_operator.status import Summary, conditions, is_over
from rft_run.config import JobIdentity, RunConfig
from rft_run.exit_codes import ExitCode
from rft_run.report import Ending
from rft_trainer.monitors.local_status import LocalStatus
from tests.manifests import manifest

NOW = datetime(2026, 11, 28, 19, 0, tzinfo=UTC)
PHASES: tuple[Phase, ...] = get_args(Phase)
PREPARING, TRAINING = (
    RunStatus.model_validate({"progress": {"stage": stage}}) for stage in ("preparing", "training")
)
LOCAL: dict[Phase, tuple[RunStatus, Ending | None]] = {
    "Starting": (PREPARING, None),
    "Running": (TRAINING, None),
    "Suspended": (TRAINING, Ending(exit_code=ExitCode.PREEMPTED, reason="Suspended", message="stopped")),
    "Succeeded": (TRAINING, Ending(exit_code=ExitCode.OK, reason=Reason.MAX_STEPS, message="done")),
    "Failed": (TRAINING, Ending(exit_code=ExitCode.DATA, reason=Reason.DATA, message="line 7: not JSON")),
}
"""For each phase that a local run can reach: what the trainer reports, and how it ends (None: it still runs).

A phase such as Queued is missing, because a local run never waits in a queue.
"""


def by_operator(phase: Phase, reason: str, message: str, **flags: bool) -> list[dict[str, Any]]:
    summary = Summary(phase, reason, message, SPEC_ACCEPTED, planned_by([]), **flags)
    return [condition.dump() for condition in conditions(summary, [], 1, NOW)]


def held(conditions: list[dict[str, Any]]) -> set[str]:
    return {entry["type"] for entry in conditions if entry["status"] == "True"}


def kstatus(conditions: list[dict[str, Any]]) -> str:
    """Return the status that kstatus computes from the conditions Reconciling and Stalled, in this order."""
    true = held(conditions)
    return "InProgress" if "Reconciling" in true else "Failed" if "Stalled" in true else "Current"


@pytest.mark.parametrize("phase", PHASES)
def test_the_operator_writes_the_conditions_of_each_phase(phase: Phase) -> None:
    found = by_operator(phase, "AReason", "a message")
    assert held(found) == {"Accepted", "Planned", *PHASE_CONDITIONS[phase]}
    assert tuple(entry["type"] for entry in found) == CONDITION_TYPES
    assert all(entry["message"] for entry in found)


@pytest.mark.parametrize("phase", PHASES)
def test_a_local_run_writes_the_same_conditions_as_the_operator(phase: Phase, tmp_path: Path) -> None:
    if phase not in LOCAL:
        assert phase in ("Pending", "Queued", "Invalid", "Cancelled")
        return
    spec = RFTJobSpec.model_validate(manifest()["spec"])
    config = RunConfig(
        job=JobIdentity(name="job", namespace="default", uid="uid"),
        spec=spec,
        effective=effective(spec, "uid"),
        run_dir=str(tmp_path),
        dataset_path="rows.jsonl",
    )
    status = LocalStatus(config).status(*LOCAL[phase], rfc3339(NOW))
    assert status.phase == phase
    ready = next(entry for entry in status.conditions if entry.type == "Ready")
    wanted = by_operator(phase, ready.reason, status.message or "")
    for entry in wanted:
        del entry["observedGeneration"]  # a local manifest has no generation
    assert [entry.dump() for entry in status.conditions] == wanted


@pytest.mark.parametrize(
    ("phase", "wanted"),
    [
        ("Pending", "InProgress"),
        ("Queued", "InProgress"),
        ("Starting", "InProgress"),
        ("Running", "Current"),
        ("Suspended", "Current"),
        ("Succeeded", "Current"),
        ("Cancelled", "Current"),
        ("Invalid", "Failed"),
        ("Failed", "Failed"),
    ],
)
def test_kstatus_evaluates_each_phase_as_documented(phase: Phase, wanted: str) -> None:
    assert kstatus(by_operator(phase, "AReason", "a message")) == wanted


def test_a_stalled_running_job_stays_ready_and_is_failed_in_kstatus() -> None:
    found = by_operator("Running", "NoProgress", "silent", stalled=True)
    assert held(found) == {"Accepted", "Planned", "Ready", "Stalled"}
    assert kstatus(found) == "Failed"


@pytest.mark.parametrize("phase", PHASES)
def test_the_conditions_of_a_phase_do_not_contradict_each_other(phase: Phase) -> None:
    true = set(PHASE_CONDITIONS[phase])
    assert len(true & {"Reconciling", "Ready", "Stalled"}) == 1, (
        "kstatus needs exactly one of the three conditions"
    )
    ends = true & set(TERMINAL_CONDITIONS)
    assert len(ends) == (phase in TERMINAL_PHASES), (
        "a job has one terminal condition if it has ended, else none"
    )
    assert ("Failed" in true) == (phase == "Failed")
    assert ("Suspended" in true) == (phase == "Suspended")


def test_no_two_phases_have_the_same_conditions_but_those_before_the_first_step() -> None:
    by_conditions: dict[tuple[str, ...], list[Phase]] = {}
    for phase in PHASES:
        by_conditions.setdefault(PHASE_CONDITIONS[phase], []).append(phase)
    assert [same for same in by_conditions.values() if len(same) > 1] == [["Pending", "Queued", "Starting"]]


def test_a_job_that_an_older_version_cancelled_has_ended() -> None:
    stored = json.loads((Path(__file__).parent / "stored" / "cancelled.json").read_text(encoding="utf-8"))
    true = {entry["type"] for entry in stored["status"]["conditions"] if entry["status"] == "True"}
    assert {"Ready", "Failed"} <= true, "what older versions wrote"
    assert is_over(stored["status"])
