"""How the CLI shows the trainer's progress events, and explains in words how a run ended."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from rft_api.status import EvaluationResult, GraderEvaluation, PairedDifference
from rft_cli.local.trainer import ProgressEvent
from rft_cli.render.console import Terminal
from rft_cli.render.endings import ENDINGS, explain
from rft_cli.render.evaluation import evaluation_table, verdict
from rft_cli.render.progress import ProgressView
from rft_cli.render.progress import describe as described
from rft_cli.render.views import duration, steps
from rft_run.events import EndEvent, parse
from rft_run.exit_codes import ExitCode
from rft_run.folder import RunFolder
from tests.unit.checkpoint_support import write_checkpoint

STEP: dict[str, Any] = {
    "event": "step",
    "step": 3,
    "totalSteps": 40,
    "totalStepsEstimated": True,
    "reward": 0.25,
    "tokensPerSecond": 80.4,
    "etaSeconds": 125.0,
}


def parsed(event: dict[str, Any]) -> ProgressEvent:
    found = parse(json.dumps(event))
    assert found is not None
    assert not isinstance(found, EndEvent)
    return found


def describe(event: dict[str, Any]) -> str:
    return described(parsed(event))


def shown(*events: dict[str, Any], terminal: bool) -> str:
    console = Terminal(file=io.StringIO(), force_terminal=terminal, width=100, color_system=None)
    with ProgressView(console) as view:
        for event in events:
            view.show(parsed(event))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def result(low: float, high: float, *, selected: bool = False) -> EvaluationResult:
    scores = GraderEvaluation(
        base=0.25, tuned=0.5, difference=PairedDifference(mean=(low + high) / 2, low=low, high=high)
    )
    return EvaluationResult(rows=64, step=40, reward=scores, graders={"number": scores}, selected=selected)


def test_a_step_is_one_line_with_reward_speed_and_time_left() -> None:
    assert describe(STEP) == "step 3/~40, reward 0.250, 80 tokens/s, 2m05s left"


def test_what_a_step_does_not_say_is_left_out() -> None:
    assert describe({"event": "step", "step": 1, "reward": None}) == "step 1/?, reward -"


def test_evaluations_and_resuming_are_said_in_words() -> None:
    evaluation = {"event": "evaluation", "step": 0, "reward": 0.23, "rows": 64}
    assert describe(evaluation) == "held-out reward of the base policy: 0.230 (64 rows)"
    assert describe({**evaluation, "step": 8}) == "held-out reward of step 8: 0.230 (64 rows)"
    assert describe({"event": "resumed", "step": 8}) == "resumed after step 8"


def test_without_a_terminal_every_event_is_a_plain_line() -> None:
    output = shown({"event": "stage", "stage": "training"}, STEP, {**STEP, "step": 4}, terminal=False)
    assert output.splitlines() == ["training", describe(STEP), describe({**STEP, "step": 4})]


def test_on_a_terminal_steps_share_one_live_line() -> None:
    output = shown({"event": "stage", "stage": "training"}, STEP, {**STEP, "step": 4}, terminal=True)
    assert "━" in output
    assert "step 4/~40" in output
    assert describe(STEP) not in output.splitlines()


def test_on_a_terminal_a_stage_after_the_last_step_is_seen() -> None:
    output = shown(STEP, {"event": "stage", "stage": "evaluatingTuned"}, terminal=True)
    assert "━ evaluating the tuned policy" in output


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.6, "1m00s"), (200, "3m20s"), (7500, "2h05m"), (273600, "3d4h"), (None, "-"), (-5, "0s")],
)
def test_a_duration_is_its_two_largest_units(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_an_estimated_total_is_marked() -> None:
    assert [steps(3, 40, True), steps(3, 40, False), steps(3, None, True), steps(None, 40, True)] == [
        "3/~40",
        "3/40",
        "3/?",
        "-",
    ]


def test_every_exit_code_of_the_trainer_is_explained(tmp_path: Path) -> None:
    assert set(ExitCode) <= set(ENDINGS)
    for code in (*ENDINGS, 139, 99):
        assert "{" not in explain(code, RunFolder(tmp_path)).fix
    assert "signal 11" in explain(139, RunFolder(tmp_path)).what
    assert "code 99" in explain(99, RunFolder(tmp_path)).what


@pytest.mark.parametrize("code", [ExitCode.UNEXPECTED, ExitCode.PREEMPTED, 137, 139, 99])
def test_what_the_same_command_does_next_depends_on_the_checkpoints(tmp_path: Path, code: int) -> None:
    folder = RunFolder(tmp_path)
    assert "there is no checkpoint yet" in explain(code, folder).fix
    for step in (2, 4):
        write_checkpoint(folder, step)
    assert "resumes from the checkpoint of step 4" in explain(code, folder).fix
    (folder.checkpoint_of(4) / "state.json").write_text("")
    assert "resumes from the checkpoint of step 2" in explain(code, folder).fix
    shutil.rmtree(folder.checkpoint_of(2))
    folder.checkpoint_of(2).mkdir()
    assert "no checkpoint of the run can be read" in explain(code, folder).fix
    assert "the same command resumes" not in explain(code, folder).fix


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0.1, 0.4, "scores higher"), (-0.4, -0.1, "scores lower"), (-0.1, 0.4, "no clear difference")],
)
def test_the_verdict_follows_the_interval(low: float, high: float, words: str) -> None:
    assert words in verdict(result(low, high))


def test_a_selected_checkpoint_is_called_flattered() -> None:
    assert "too optimistic" in verdict(result(0.1, 0.4, selected=True))
    assert "not compared" in verdict(EvaluationResult(rows=64))


def test_the_evaluation_shows_reward_and_graders_with_their_intervals() -> None:
    console = Terminal(file=io.StringIO(), width=100)
    console.print(evaluation_table(result(0.125, 0.375)))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert "64 rows, tuned at step 40" in lines[0]
    assert lines[2].split() == ["reward", "0.250", "0.500", "+0.250", "+0.125", "to", "+0.375"]
    assert lines[3].split()[0] == "number"
