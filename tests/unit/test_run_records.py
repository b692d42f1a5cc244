"""Records of a run keep their values when they are written and read again, also by another release."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
import zstandard

from rft_api.status import EvaluationResult, Output, RFTJobStatus
from rft_run.events import EndEvent, EvaluationEvent, Event, ResumedEvent, StageEvent, StepEvent, parse
from rft_run.folder import RunFolder, adapter_of, pickle_of, state_of
from rft_run.rollouts import RolloutRecord, UnreadableRollouts, as_bytes, compressed, read_rollouts
from rft_run.state import Position, RunState
from rft_run.status_file import UnreadableStatus, read_status, write_status
from rft_run.steps import StepRecord, UnreadableSteps, as_lines, read_steps

ROLLOUT = RolloutRecord(
    step=3,
    line=7,
    messages=[{"role": "user", "content": "What is 7 + 1?\u2028"}],
    fields={"answer": 8, "hints": ["add", None]},
    completion='eight\n"8"\x1b',
    reward=None,
    graders={"right": 1.0, "short": None},
    errors={"short": "timed out"},
    finish_reason="stop",
    tokens=2,
)


def rollouts_file(folder: Path, records: list[RolloutRecord]) -> Path:
    path = folder / "step-000003.jsonl.zst"
    path.write_bytes(compressed(as_bytes(records)))
    return path


def metrics_file(folder: Path, *lines: str) -> Path:
    path = folder / "metrics.jsonl"
    path.write_text("".join(lines))
    return path


# --- records --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {"step": 1},
        {"step": 1, "reward": None, "graders": {}},
        {"step": 1, "reward": 0.25, "rewardStd": 0.5, "adapterVersion": 1, "time": "2020-01-01T00:00:00Z"},
        {"step": 1, "reward": 0.25, "novelty": {"ofANewer": ["release"]}, "otherNumber": 3},
    ],
    ids=["a step alone", "nulls", "known fields", "unknown fields"],
)
def test_a_record_that_is_read_and_written_again_stays_the_same(body: dict[str, Any]) -> None:
    assert json.loads(StepRecord.from_line(json.dumps(body)).as_line()) == body


def test_a_line_has_no_spaces_and_ends_with_a_newline() -> None:
    assert StepRecord(step=1, reward_std=0.5).as_line() == '{"step":1,"rewardStd":0.5}\n'


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_is_neither_written_nor_read(number: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        StepRecord(step=1, reward=number)
    with pytest.raises(ValueError, match="finite"):
        StepRecord.from_line(json.dumps({"step": 1, "reward": number}))


def test_a_number_that_is_not_finite_in_an_unknown_field_is_not_written() -> None:
    read = StepRecord.from_line('{"step": 1, "novelty": NaN}')
    with pytest.raises(ValueError, match="not JSON compliant"):
        read.as_line()


# --- steps ----------------------------------------------------------------------------------------


def test_steps_are_read_as_they_were_written(tmp_path: Path) -> None:
    written = [StepRecord(step=1, reward=0.1), StepRecord(step=2, reward=None)]
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(as_lines(written))
    assert read_steps(path) == written


def test_a_run_without_a_step_has_no_records(tmp_path: Path) -> None:
    assert read_steps(tmp_path / "metrics.jsonl") == []
    assert read_steps(metrics_file(tmp_path)) == []


@pytest.mark.parametrize("rest", ['{"step": 2, "rew', '{"step": 2}'])
def test_a_last_line_without_its_newline_is_left_out(tmp_path: Path, rest: str) -> None:
    assert read_steps(metrics_file(tmp_path, '{"step": 1}\n', rest)) == [StepRecord(step=1)]


@pytest.mark.parametrize("broken", ["{", "", "[]", '{"reward": 0.5}', '{"step": "two"}'])
def test_a_broken_line_is_named_or_skipped(tmp_path: Path, broken: str) -> None:
    path = metrics_file(tmp_path, '{"step": 1}\n', f"{broken}\n", '{"step": 3}\n')
    with pytest.raises(UnreadableSteps, match=r"metrics\.jsonl: line 2: is not the record of a step"):
        read_steps(path)
    skipped: list[int] = []
    assert read_steps(path, skipped) == [StepRecord(step=1), StepRecord(step=3)]
    assert skipped == [2]


# --- rollouts -------------------------------------------------------------------------------------


def test_rollouts_are_read_as_they_were_written(tmp_path: Path) -> None:
    bare = RolloutRecord(line=9, completion="", graders={})
    path = rollouts_file(tmp_path, [ROLLOUT, bare])
    assert read_rollouts(path) == [ROLLOUT, bare]
    assert [record.dump() for record in read_rollouts(path)] == [ROLLOUT.dump(), bare.dump()]


def test_a_step_without_rollouts_is_an_empty_file(tmp_path: Path) -> None:
    assert read_rollouts(rollouts_file(tmp_path, [])) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (StepRecord(step=3).as_line(), "a record lacks one of the fields line, completion and graders"),
        (json.dumps(ROLLOUT.dump() | {"tokens": "two"}), "tokens: Input should be a valid integer"),
        ("{\n", "Invalid JSON"),
    ],
    ids=["another record", "a wrong field", "no JSON"],
)
def test_what_is_no_file_of_rollouts_says_why_in_one_line(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "step-000003.jsonl.zst"
    path.write_bytes(zstandard.ZstdCompressor().compress(text.encode()))
    with pytest.raises(UnreadableRollouts, match=rf"^[^\n]*is not a file of rollouts: {problem}[^\n]*$"):
        read_rollouts(path)


def test_a_file_that_is_damaged_or_missing_holds_no_rollouts(tmp_path: Path) -> None:
    path = rollouts_file(tmp_path, [ROLLOUT])
    path.write_bytes(b"not zstandard")
    with pytest.raises(UnreadableRollouts, match="is not a file of rollouts"):
        read_rollouts(path)
    with pytest.raises(UnreadableRollouts, match="No such file"):
        read_rollouts(tmp_path / "none")


# --- events ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "event",
    [
        StageEvent(event="stage", stage="evaluatingBase"),
        ResumedEvent(event="resumed", step=8),
        StepEvent(event="step", step=9, reward=None, graders={"right": 0.5}, total_steps=40, eta_seconds=1.5),
        EvaluationEvent(event="evaluation", step=0, reward=0.25, rows=64),
        EndEvent(event="end", exit_code=11, reason="DataError", message="line 3: has no messages"),
    ],
    ids=lambda event: str(event.event),
)
def test_an_event_is_heard_as_it_was_said(event: Event) -> None:
    assert parse(event.as_line()) == event
    assert parse(event.as_line().rstrip("\n")) == event


@pytest.mark.parametrize(
    "line",
    [
        "", "loading weights", '{"a": 1}', "{broken", '["event"]', '{"event": 3}', '{"event": "saved"}',
        '{"event": "stage"}', '{"event": "stage", "stage": "resting"}', ' {"event": "resumed", "step": 8}',
    ],
)  # fmt: skip
def test_any_other_line_is_no_event(line: str) -> None:
    assert parse(line) is None


# --- the folder -----------------------------------------------------------------------------------


def test_a_folder_finds_the_steps_of_what_it_holds(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.steps_with_rollouts() == folder.evaluated_steps() == folder.steps_with_checkpoint() == []
    for path in (folder.rollouts_of(10), folder.rollouts_of(2), folder.evaluation_of(0)):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    for step in (1_000_000, 999_999):
        folder.checkpoint_of(step).mkdir(parents=True)
    assert folder.steps_with_rollouts() == [2, 10]
    assert folder.evaluated_steps() == [0]
    assert folder.steps_with_checkpoint() == [999_999, 1_000_000]


@pytest.mark.parametrize("name", [".step-000003.1a2b3c4d.partial", "step-3", "step-000003.old", "other"])
def test_what_is_no_complete_checkpoint_is_not_found(tmp_path: Path, name: str) -> None:
    folder = RunFolder(tmp_path)
    (folder.checkpoints / name).mkdir(parents=True)
    assert folder.steps_with_checkpoint() == []


def test_names_are_those_that_older_releases_wrote() -> None:
    stored = RunFolder(Path(__file__).parents[1] / "stored" / "c5ea54e" / "whole")
    checkpoint = stored.checkpoint_of(4)
    for path in (
        stored.config, stored.inputs, stored.digests, stored.log, stored.attempt, stored.status,
        stored.metrics, stored.preflight, stored.adapter, stored.adapters, stored.rollouts_of(1),
        stored.evaluation_of(0), state_of(checkpoint), pickle_of(checkpoint), adapter_of(checkpoint),
    ):  # fmt: skip
        assert path.exists(), path


# --- state and status -----------------------------------------------------------------------------


def test_a_state_is_read_as_it_was_written() -> None:
    state = RunState(step=3, position=Position(2, 5), grader_errors={"right": 1}, best_reward=0.5)
    assert RunState.from_json(json.loads(json.dumps(state.to_json()))) == state


def test_a_state_without_a_newer_field_has_its_default() -> None:
    older = RunState(step=3, evaluations_without_best=2, forged_replies={"right": 1}).to_json()
    del older["evaluations_without_best"], older["forged_replies"]
    assert RunState.from_json(older) == RunState(step=3)


def test_a_state_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="not a run's state"):
        RunState.from_json({"step": 3})


def test_a_state_keeps_the_fields_of_a_newer_release() -> None:
    newer = RunState().to_json() | {"novelty": 1}
    assert RunState.from_json(newer).to_json() == newer


def test_a_status_is_read_as_it_was_written(tmp_path: Path) -> None:
    status = RFTJobStatus(
        phase="Succeeded",
        message="« Jede Epoche ist trainiert »",
        start_time="2020-01-01T00:00:00Z",
        evaluation=EvaluationResult(rows=64),
        output=Output(folder="/runs/job"),
    )
    path = tmp_path / "run" / "status.yaml"
    write_status(path, status)
    assert read_status(path) == status


def test_a_run_that_has_just_begun_has_an_empty_status(tmp_path: Path) -> None:
    assert read_status(tmp_path / "status.yaml") == RFTJobStatus()
    (tmp_path / "status.yaml").touch()
    assert read_status(tmp_path / "status.yaml") == RFTJobStatus()


@pytest.mark.parametrize("text", ["phase: [", "novelty: 1", "- a list", yaml.safe_dump({"phase": "Resting"})])
def test_what_is_no_status_is_unreadable(tmp_path: Path, text: str) -> None:
    path = tmp_path / "status.yaml"
    path.write_text(text)
    with pytest.raises(UnreadableStatus, match=r"status\.yaml: is not a status that this version can read"):
        read_status(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UnreadableStatus):
        read_status(path)


def test_a_status_that_cannot_be_read_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="directory"):
        read_status(tmp_path)
