"""Preflight: the findings from the rewards of a few prompts, before training begins."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rft_graders.types import Score, ScoredBatch
from rft_run.errors import ConfigurationError, UserCodeError
from rft_run.events import FindingEvent, parse
from rft_run.folder import RunFolder
from rft_trainer.data import Prompt, Row
from rft_trainer.loop import Run
from rft_trainer.monitors.progress import Events
from rft_trainer.monitors.report import Reporter
from rft_trainer.preflight import findings
from rft_trainer.rollout.engine import Generated
from rft_trainer.rollout.groups import Rollout, SampledBatch, group_of
from rft_trainer.runtime import machine
from tests.trainer.loop_support import config, run

PROMPT = Prompt(Row(1, [{"role": "user", "content": "1+1"}], {}, "key"), (1, 2))


def batch(rewards: Sequence[Sequence[float | None]], *, cut: bool = False, error: str = "") -> SampledBatch:
    """Return a batch whose groups have these rewards. The reward ``None`` means that the grader failed.

    - ``cut`` says whether the completions are truncated.
    - ``error`` is the text of the grader's error for each rollout.
    """
    groups, scores = [], []
    for group in rewards:
        rollouts = tuple(
            Rollout(
                Generated((3, 4), (-0.1, -0.2), "about 3", "length" if cut else "stop"),
                Score(reward, {}, {"right": error} if reward is None or error else {}),
            )
            for reward in group
        )
        groups.append(group_of(PROMPT, rollouts, "std"))
        scores += [rollout.score for rollout in rollouts]
    return SampledBatch(groups, ScoredBatch(scores), 1.0, 1.0)


@pytest.mark.parametrize(
    ("made", "rules", "said"),
    [
        (batch([[0, 0], [0, 0]]), ["preflight-no-variance"], "never gets a reward"),
        (batch([[1, 1], [1, 1]]), ["preflight-no-variance"], "already gets the full reward"),
        (
            batch([[0.5, 0.5], [0.2, 0.2]]),
            ["preflight-no-variance"],
            "0.20 to 0.50, always equal for the same prompt",
        ),
        (batch([[0, 1], [0, 0]], cut=True), ["preflight-always-cut"], "all 4 completions"),
        (
            batch([[None, None]], error="KeyError: 'answer'"),
            ["preflight-grader-fails", "preflight-nothing-graded"],
            "KeyError: 'answer'",
        ),
        (
            batch([[0.0, 0.0], [0.0, 0.0]], error="timed out"),  # onError: zero
            ["preflight-grader-fails", "preflight-no-variance"],
            "failed on all 4 completions",
        ),
        (batch([[0, 1], [0, 0]]), [], ""),
        (batch([[None, 0, 1], [None, 0, 0]]), [], ""),
    ],
)
def test_each_pattern_is_found_and_a_healthy_batch_is_silent(
    made: SampledBatch, rules: list[str], said: str
) -> None:
    found = findings(made)
    assert [entry.rule for entry in found] == rules
    assert said in "; ".join(entry.message for entry in found)
    assert all(entry.parameter for entry in found)


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: 1)


def never(folder: Path, model: Path, mode: str) -> Any:
    """Return the configuration of a run whose grader searches for a word that no completion contains."""
    made = config(model, folder)
    graders = [{"name": "never", "regex": {"pattern": "zebra"}}]
    document = made.spec.dump() | {"preflight": mode, "graders": graders}
    return made.model_copy(update={"spec": type(made.spec).model_validate(document)})


@pytest.mark.usefixtures("one_thread")
def test_required_it_ends_the_run_before_a_step_and_again_on_the_next_attempt(
    character_model: Path, tmp_path: Path
) -> None:
    wanted = never(tmp_path, character_model, "require")
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="never gets a reward"):
            run(wanted)
    assert not (tmp_path / "evaluation").exists()
    assert not (tmp_path / "checkpoints" / "step-000001").exists()


@pytest.mark.usefixtures("one_thread")
def test_by_default_it_warns_in_the_status_and_off_is_off(character_model: Path, tmp_path: Path) -> None:
    warned = run(never(tmp_path / "warn", character_model, "warn"))
    assert warned.state.step == 3
    recommendations = warned.monitors.snapshot().recommendations or []
    assert recommendations[0].rule == "preflight-no-variance"
    silent = run(never(tmp_path / "off", character_model, "off"))
    assert not [r for r in silent.monitors.snapshot().recommendations or [] if r.rule.startswith("preflight")]
    assert not RunFolder(tmp_path / "off").preflight.exists()


@pytest.mark.usefixtures("one_thread")
def test_a_grader_that_always_fails_ends_the_run_before_a_step_until_it_is_mended_or_preflight_is_off(
    character_model: Path, tmp_path: Path
) -> None:
    broken = failing(tmp_path, character_model, "warn", "raise KeyError('answer')")
    for _ in range(2):
        with pytest.raises(UserCodeError, match=r"own failed on all \d+ completions.*KeyError: 'answer'"):
            run(broken)
    assert not (tmp_path / "checkpoints" / "step-000001").exists()
    mended = failing(tmp_path, character_model, "warn", "return len(completion) % 2")
    assert run(mended).state.step == 3


@pytest.mark.usefixtures("one_thread")
def test_findings_are_events_when_they_are_found(character_model: Path, tmp_path: Path) -> None:
    wanted, stream = never(tmp_path, character_model, "warn"), io.StringIO()
    with Reporter(wanted) as reporter:
        Run(wanted, reporter, Events(stream), lambda: False).train()
    events = [event for line in stream.getvalue().splitlines() if (event := parse(line)) is not None]
    kinds = [event.event for event in events]
    assert kinds.index("finding") < kinds.index("evaluation")
    (finding,) = [event for event in events if isinstance(event, FindingEvent)]
    assert "never gets a reward" in finding.message


def failing(folder: Path, model: Path, mode: str, body: str) -> Any:
    """Return the configuration of a run with a python grader. ``body`` is the grader function's body."""
    made = config(model, folder)
    graders = [{"name": "own", "python": {"inline": f"def grade(completion, row):\n    {body}"}}]
    document = made.spec.dump() | {"preflight": mode, "graders": graders}
    return made.model_copy(update={"spec": type(made.spec).model_validate(document)})
