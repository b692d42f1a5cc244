"""What the benchmark against TRL tells its sides, and how it counts."""

from pathlib import Path

from bench.sides import Case, Outcome, Step, run_config, trl_case
from rft_planner.steps import first_expectation, prompts_per_step


def case(model: Path) -> Case:
    return Case("natural", model, max_tokens=24, steps=3, threads=1, dtype="float32")


def test_every_step_of_ours_takes_all_prompts_as_trls_does(character_model: Path, tmp_path: Path) -> None:
    told = trl_case(case(character_model))
    spec = run_config(case(character_model), "transformers", tmp_path).spec
    longest_prompt = case(character_model).context - told["maxTokens"]
    # The expected length moves between half of the longest completion and all of it.
    for expected in (first_expectation(told["maxTokens"]), told["maxTokens"]):
        joining = prompts_per_step(
            longest_prompt, expected, told["rollouts"], spec.training.batch_size_tokens
        )
        assert joining * told["rollouts"] >= told["completions"]
    assert spec.training.epochs == told["steps"]


def test_what_ours_derives_is_what_trl_is_told(character_model: Path, tmp_path: Path) -> None:
    told = trl_case(case(character_model))
    config = run_config(case(character_model), "transformers", tmp_path)
    derived = config.effective
    assert (derived.clip_low, derived.clip_high, derived.kl_beta) == (0.2, 0.2, told["klBeta"])
    assert (derived.loss_aggregation, derived.seed) == ("token", told["seed"])
    assert config.plan is not None
    assert config.plan.micro_batch_tokens == told["microBatch"] * derived.max_context_length


def test_the_first_step_is_not_counted() -> None:
    first = Step(at=100.0, cpu_seconds=50.0, phases={"update": 9.0}, lengths=(1,) * 8)
    second = Step(at=104.0, cpu_seconds=58.0, phases={"update": 3.0}, lengths=(2,) * 8)
    found = Outcome((first, second), memory=0.0)
    assert (found.rate, found.cpu, found.tokens, found.phase("update")) == (2.0, 1.0, 2.0, 3.0)
    assert found.phase("publish") == 0.0
