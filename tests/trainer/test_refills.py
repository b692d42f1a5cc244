"""Groups with equal rewards are replaced ("refilled") by groups of the next rows of the dataset.

Some tests are about the penalty for long completions.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from rft_run.errors import Preempted
from rft_run.rollouts import RolloutRecord, read_rollouts
from rft_run.state import Position
from rft_run.steps import StepRecord, read_steps
from rft_trainer import setup
from rft_trainer.data import Prompt, Row
from rft_trainer.data.training import InMemory
from rft_trainer.loop import Run
from rft_trainer.rollout.advantages import Overlong, group_advantages
from rft_trainer.runtime import machine
from tests.trainer.loop_support import config, run, with_spec
from tests.trainer.reference_support import Trained, batches

__all__ = ["batches"]
START = [{"name": "start", "regex": {"pattern": "^[0-4]"}}]
SELDOM = [{"name": "three", "regex": {"pattern": "^3"}}]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: 1)


def asked(model: Path, folder: Path, steps: int = 99, **training: Any) -> Any:
    """Return a configuration in which about half of the groups have equal rewards.

    A batch has a third of the dataset's rows.
    """
    wanted = config(model, folder, deterministic=True, klBeta=0, **training)
    return with_spec(wanted, graders=SELDOM, stop={"maxSteps": steps}, preflight="off")


def records(folder: Path) -> list[StepRecord]:
    return list(read_steps(folder / "metrics.jsonl"))


def rollouts(folder: Path) -> list[list[RolloutRecord]]:
    return [list(read_rollouts(path)) for path in sorted((folder / "rollouts").glob("step-*.zst"))]


def rows(folder: Path) -> list[list[int]]:
    """Return for each step of a run the line numbers, in the dataset, of the rows of its rollouts."""
    return [list(dict.fromkeys(one.line for one in step)) for step in rollouts(folder)]


def test_refills_use_each_row_once_per_epoch_and_never_cross_its_end(
    character_model: Path, tmp_path: Path, batches: list[Trained]
) -> None:
    run(asked(character_model, tmp_path / "run", epochs=2, refillRounds=2))
    made = records(tmp_path / "run")
    assert any(record.refilled_groups for record in made)
    by_epoch: list[list[int]] = [[]]
    training_rows = 38  # 70 rows, of which 32 are held out
    for step in rows(tmp_path / "run"):
        assert len(by_epoch[-1]) + len(step) <= training_rows, "a step must not have rows of two epochs"
        by_epoch[-1] += step
        if len(by_epoch[-1]) == training_rows:
            by_epoch.append([])
    first, second, rest = by_epoch
    assert sorted(first) == sorted(second)
    assert len(set(first)) == training_rows
    assert rest == []
    assert not any(group.flat for batch in batches for group in batch.groups), (
        "no group with equal rewards may be trained on"
    )
    for batch, record in zip(batches, made, strict=True):
        assert record.groups is not None
        assert record.refilled_groups is not None
        assert len(batch.groups) <= record.groups


def test_refills_end_after_their_rounds_where_no_group_has_variance(
    character_model: Path, tmp_path: Path
) -> None:
    never = [{"name": "never", "regex": {"pattern": "[a-z]{99}"}}]
    for rounds in (0, 1):
        wanted = asked(character_model, tmp_path / str(rounds), 1, refillRounds=rounds)
        run(with_spec(wanted, graders=never))
    (without,), (once,) = records(tmp_path / "0"), records(tmp_path / "1")
    assert (without.refilled_groups, once.refilled_groups) == (0, without.groups)
    assert once.groups == 2 * (without.groups or 0)
    assert once.updates == 0, "a step with only equal rewards must make no update"
    assert rows(tmp_path / "1")[0][: len(rows(tmp_path / "0")[0])] == rows(tmp_path / "0")[0]


def test_a_refill_that_cannot_be_graded_ends_no_run_whose_step_is_mostly_graded(
    character_model: Path, tmp_path: Path
) -> None:
    run(asked(character_model, tmp_path / "graded", 1, refillRounds=1))
    (graded,) = records(tmp_path / "graded")
    refilled = rows(tmp_path / "graded")[0][-(graded.refilled_groups or 0) :]
    dataset = (tmp_path / "graded" / "rows.jsonl").read_text().splitlines()
    broken = [json.loads(dataset[line - 1])["messages"][0]["content"] for line in refilled]
    code = (
        "def grade(completion, row):\n"
        f"    assert row['messages'][0]['content'] not in {broken}\n"
        "    return float(completion.startswith('3'))\n"
    )
    wanted = asked(character_model, tmp_path / "run", 1, refillRounds=1)
    run(with_spec(wanted, graders=[{"name": "own", "python": {"inline": code}, "onError": "drop"}]))
    (record,) = records(tmp_path / "run")
    assert rows(tmp_path / "run") == rows(tmp_path / "graded")
    assert record.dropped_groups == record.refilled_groups == len(refilled) > 0


def test_a_resumed_run_goes_on_behind_the_rows_that_refilled_a_step(
    character_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wanted(name: str) -> Any:
        return asked(character_model, tmp_path / name, 3, refillRounds=2)

    run(wanted("whole"))
    stopped = False
    step = Run._step

    def stop_after_one(self: Run, *arguments: Any) -> None:
        nonlocal stopped
        step(self, *arguments)
        stopped = True

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_step", stop_after_one)
        with pytest.raises(Preempted):
            run(wanted("cut"), lambda: stopped)
    assert records(tmp_path / "cut")[0].refilled_groups
    run(wanted("cut"))
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    weights = "adapter/adapter_model.safetensors"
    assert (tmp_path / "cut" / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()


def test_the_batch_that_is_sampled_ahead_begins_behind_the_refills(
    character_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "overlaps", lambda spec, gpus: True)
    monkeypatch.setattr(Run, "_probe_sampler", lambda _self, _parts: None)
    run(asked(character_model, tmp_path / "run", epochs=1, refillRounds=2))
    made = records(tmp_path / "run")
    assert any(record.refilled_groups for record in made)
    assert any(record.staleness for record in made)
    used = [row for step in rows(tmp_path / "run") for row in step]
    assert len(used) == len(set(used)) == 38


def test_further_prompts_end_with_the_epoch() -> None:
    prompts = InMemory([Prompt(Row(line, [], {}, ""), (line,)) for line in range(5)], 3)
    order = [prompt.row.line for prompt in prompts.batch(Position(), 1, 1, 0.0, 100).prompts]

    def lines(position: Position, count: int) -> tuple[list[int], Position]:
        found = prompts.further(position, count)
        return [prompt.row.line for prompt in found.prompts], found.after

    assert lines(Position(1, 2), 2) == (order[2:4], Position(1, 4))
    assert lines(Position(1, 3), 2) == (order[3:], Position(1, 5))
    assert lines(Position(1, 3), 9) == (order[3:], Position(2, 0))
    assert lines(Position(1, 5), 1) == ([], Position(2, 0))
    assert lines(Position(2, 0), 3) == ([], Position(2, 0)), (
        "the epoch has ended, so there are no further prompts"
    )


@pytest.mark.parametrize(
    ("tokens", "taken"), [(1, 0.0), (16, 0.0), (18, 0.25), (19, 0.375), (20, 0.5), (25, 0.5)]
)
def test_the_penalty_rises_over_the_last_fifth_of_the_longest_length(tokens: int, taken: float) -> None:
    assert Overlong(0.5, 20).penalty(tokens) == pytest.approx(taken)


def test_the_penalty_for_length_changes_advantages_and_not_the_reported_reward(
    character_model: Path, tmp_path: Path
) -> None:
    for penalty in (0, 0.5):
        wanted = config(character_model, tmp_path / str(penalty), deterministic=True, overlongPenalty=penalty)
        run(with_spec(wanted, graders=START, stop={"maxSteps": 1}, preflight="off"))
    without, taken = (rollouts(tmp_path / name)[0] for name in ("0", "0.5"))
    assert [one.reward for one in taken] == [one.reward for one in without]
    assert any(one.tokens == 16 for one in taken)
    assert any((one.tokens or 0) <= 12 for one in taken)
    for line in {one.line for one in taken}:
        group = [one for one in taken if one.line == line]
        assert [one.overlong_penalty for one in group] == pytest.approx(
            [0.5 * min(1.0, max(0.0, ((one.tokens or 0) - 16) / 3.2 + 1)) for one in group]
        )
        left = [(one.reward or 0) - (one.overlong_penalty or 0) for one in group]
        assert [one.advantage for one in group] == pytest.approx(group_advantages(left, "std"))
    (plain,), (record,) = records(tmp_path / "0"), records(tmp_path / "0.5")
    assert record.reward == plain.reward
    assert plain.overlong_penalty == 0
    assert record.overlong_penalty == pytest.approx(
        sum(one.overlong_penalty or 0 for one in taken) / len(taken)
    )


def test_dapo_has_refills_and_the_penalty_unless_they_are_switched_off(
    character_model: Path, tmp_path: Path
) -> None:
    found = config(character_model, tmp_path / "dapo", objective="dapo").effective
    assert (found.refill_rounds, found.overlong_penalty) == (3, 0.5)
    off = config(character_model, tmp_path / "off", objective="dapo", refillRounds=0, overlongPenalty=0)
    assert (off.effective.refill_rounds, off.effective.overlong_penalty) == (0, 0)
    on = config(character_model, tmp_path / "on", objective="cispo", refillRounds=1, overlongPenalty=0.2)
    assert (on.effective.refill_rounds, on.effective.overlong_penalty) == (1, 0.2)


def test_a_plan_of_an_older_release_has_neither(character_model: Path, tmp_path: Path) -> None:
    written = config(character_model, tmp_path / "run", objective="dapo").effective
    stored = written.dump()
    del stored["refillRounds"], stored["overlongPenalty"]
    assert (type(written).model_validate(stored).refill_rounds) == 0
    assert (type(written).model_validate(stored).overlong_penalty) == 0
