"""The benchmark against TRL gives both trainers the same settings, and does not measure the first step."""

import json
from pathlib import Path

from bench.sides import Case, Outcome, Step, run_config, step_line, trl_case
from rft_planner.steps import first_expectation, prompts_per_step
from rft_run.events import StageEvent, StepEvent


def case(model: Path) -> Case:
    return Case("natural", model, max_tokens=24, steps=3, threads=1, dtype="float32")


def test_every_step_of_our_trainer_has_all_prompts_as_in_trl(character_model: Path, tmp_path: Path) -> None:
    trl = trl_case(case(character_model))
    spec = run_config(case(character_model), "transformers", tmp_path).spec
    longest_prompt = case(character_model).context - trl["maxTokens"]
    # The expected completion length is between half of the maximum and the maximum.
    for expected in (first_expectation(trl["maxTokens"]), trl["maxTokens"]):
        per_step = prompts_per_step(
            longest_prompt, expected, trl["rollouts"], spec.training.batch_size_tokens
        )
        assert per_step * trl["rollouts"] >= trl["completions"]
    assert spec.training.epochs == trl["steps"]


def test_our_derived_settings_are_those_that_trl_gets(character_model: Path, tmp_path: Path) -> None:
    trl = trl_case(case(character_model))
    config = run_config(case(character_model), "transformers", tmp_path)
    derived = config.effective
    assert (derived.clip_low, derived.clip_high, derived.kl_beta) == (0.2, 0.2, trl["klBeta"])
    assert (derived.loss_aggregation, derived.seed) == ("token", trl["seed"])
    assert config.plan is not None
    assert config.plan.micro_batch_tokens == trl["microBatch"] * derived.max_context_length


def test_the_steps_of_both_trainers_are_read_from_what_they_print() -> None:
    ours = StepEvent(event="step", step=2).as_line()
    theirs = json.dumps({"event": "step", "step": 2})
    for text in (ours, theirs):
        found = step_line(text)
        assert found is not None
        assert found["step"] == 2
    for other in ("", "Loading weights", '"step"', StageEvent(event="stage", stage="training").as_line()):
        assert step_line(other) is None


def test_the_first_step_is_not_measured() -> None:
    first = Step(at=100.0, cpu_seconds=50.0, phases={"update": 9.0}, lengths=(1,) * 8)
    second = Step(at=104.0, cpu_seconds=58.0, phases={"update": 3.0}, lengths=(2,) * 8)
    found = Outcome((first, second), memory=0.0)
    assert (found.rate, found.cpu, found.tokens, found.phase("update")) == (2.0, 1.0, 2.0, 3.0)
    assert found.phase("publish") == 0.0
