"""The benchmark that measures how long a run takes to reach a reward.

It gives our trainer and TRL the same task. Its times and its table are right.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bench.reward import (
    COMPLETIONS,
    CONTEXT,
    GRADER,
    HELD_OUT,
    MAX_TOKENS,
    TARGET,
    Case,
    Curve,
    curve_of,
    rows,
    spec_of,
    table,
    trl_case,
)
from rft_api.effective import effective
from rft_api.parameters import Sampling, Training
from rft_planner.steps import first_expectation, prompts_per_step
from rft_run.folder import RunFolder
from rft_trainer.evaluate import RowScores

MODEL = Path("/models/small")
LATER = datetime(2027, 1, 31, 18, tzinfo=UTC)


def grade(*texts: str, answer: int) -> list[float]:
    space: dict[str, Any] = {}
    exec(compile(GRADER, "grader", "exec"), space)  # the benchmark's own source
    completions = [[{"role": "assistant", "content": text}] for text in texts]
    found: list[float] = space["grade"](None, completions, [answer] * len(texts))
    return found


def test_the_grader_is_that_of_the_example() -> None:
    found = grade("12 + 30 = 42", "The sum is 42", "12 + 30 = 41", "no", answer=42)
    assert found == pytest.approx([1, 2 / 3, 1 / 3, 0])


def test_held_out_rows_are_not_trained_on() -> None:
    trained, held_out = (list(map(json.dumps, part)) for part in rows())
    assert len(held_out) == HELD_OUT
    assert not set(trained) & set(held_out)


def test_equal_settings_are_the_same_on_both_sides() -> None:
    case = Case("ours", "equal", 2)
    equal, spec = trl_case(case, MODEL, 30)["equal"], spec_of(case, MODEL, LATER)
    derived = effective(spec, "uid", CONTEXT)
    assert (derived.kl_beta, derived.loss_aggregation, derived.seed) == (equal["klBeta"], "token", 2)
    assert (spec.training.learning_rate, spec.training.lora_alpha) == (equal["learningRate"], equal["alpha"])
    assert spec.sampling.num_rollouts == equal["rollouts"]
    # The prompts of the example have about 50 tokens, and completions 8 to 16.
    for expected in (first_expectation(MAX_TOKENS), MAX_TOKENS):
        made = equal["rollouts"] * prompts_per_step(
            50, expected, equal["rollouts"], spec.training.batch_size_tokens
        )
        assert made == pytest.approx(COMPLETIONS, rel=0.2)


def test_with_its_defaults_each_side_is_told_the_task_alone() -> None:
    case = Case("ours", "defaults", 1)
    assert trl_case(case, MODEL, 30)["equal"] is None
    spec = spec_of(case, MODEL, LATER)
    assert spec.training == Training(seed=1)
    assert spec.sampling == Sampling(max_tokens=MAX_TOKENS)
    assert spec.stop is not None
    assert (spec.stop.target_reward, spec.stop.deadline) == (TARGET, "2027-01-31T18:00:00Z")


def test_the_time_is_that_of_the_steps_before_the_first_evaluation_that_reaches_the_reward(
    tmp_path: Path,
) -> None:
    folder = RunFolder(tmp_path)
    folder.metrics.write_text("".join(f'{{"step": {n}, "stepSeconds": {n * 10}}}\n' for n in range(1, 7)))
    for step, reward in ((0, 0.1), (2, 0.5), (4, 0.8), (6, 0.7)):
        RowScores(step, [1], [reward], {}, [""], 0.0).save(folder)
    found = curve_of(folder)
    assert list(found.points) == [(0, 0.1), (30, 0.5), (100, 0.8), (210, 0.7)]
    assert (found.seconds, found.best) == (100, 0.8)


def test_the_table_has_medians_and_says_where_the_reward_was_not_reached() -> None:
    def at(seconds: float | None) -> Curve:
        return Curve(((0.0, 0.1), (seconds or 900.0, 0.9 if seconds else 0.4)))

    found = {
        Case(side, settings, seed): at(times[seed])
        for (side, settings), times in {
            ("trl", "equal"): (400.0, 600.0, 500.0),
            ("ours", "equal"): (200.0, 300.0, 250.0),
            ("trl", "defaults"): (None, None, 700.0),
            ("ours", "defaults"): (300.0, None, 310.0),
        }.items()
        for seed in range(3)
    }
    lines = list(table(found))[2:]
    assert lines == [
        "| defaults | TRL | not reached, not reached, 700 | not reached | - | 0.400 |",
        "| defaults | ours | 300, not reached, 310 | 310 | - | 0.900 |",
        "| equal | TRL | 400, 600, 500 | 500 | - | 0.900 |",
        "| equal | ours | 200, 300, 250 | 250 | 2.00 | 0.900 |",
    ]
