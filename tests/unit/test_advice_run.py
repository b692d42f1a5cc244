"""Advice on a run: which reward curves and metrics trigger a rule, and which numbers the advice names."""

import random
from typing import Any

import pytest

from rft_advice import RUN_RULES, RunRule, recommend
from rft_advice.curve import MIN_POINTS, curve_of
from rft_api.job import RFTJobSpec
from rft_api.status import (
    EvaluationResult,
    GraderEvaluation,
    Metrics,
    PairedDifference,
    Progress,
    Reward,
    RewardPoint,
    RFTJobStatus,
    RunStatus,
)
from rft_api.validation import parse
from tests.manifests import manifest

COLLAPSE = [0.1 + 0.1 * i for i in range(8)] + [0.7, 0.5, 0.3, 0.2, 0.1, 0.1, 0.1, 0.1]
LEVEL = [0.1, 0.15, 0.2, 0.25, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
CLIMB = [0.1 + 0.04 * i for i in range(16)]
FLAT = [0.2] * 16


def spec(**sections: Any) -> RFTJobSpec:
    return parse(manifest(**sections)).spec


def reward(values: list[float]) -> Reward:
    history = [RewardPoint(step=i + 1, reward=value) for i, value in enumerate(values)]
    return Reward(latest=values[-1], best=max(values), history=history)


def run(values: list[float] | None = None, stage: str = "finished", **parts: Any) -> RunStatus:
    epoch = 2 if stage == "finished" else 1  # of one epoch: all rows are used
    progress = Progress.model_validate({"step": len(values or []), "stage": stage, "epoch": epoch})
    curve = {"reward": reward(values)} if values else {}
    return RunStatus(**{"progress": progress, **curve, **parts})


def said(found_spec: RFTJobSpec, found_run: RunStatus) -> dict[str, tuple[str | None, str]]:
    return {r.rule: (r.parameter, r.message) for r in recommend(found_spec, found_run)}


def held_out(mean: float) -> EvaluationResult:
    difference = PairedDifference(mean=mean, low=mean - 0.05, high=mean + 0.05)
    return EvaluationResult(
        rows=64, reward=GraderEvaluation(base=0.3, tuned=0.3 + mean, difference=difference)
    )


def with_canary(rewards: list[float], scores: list[float]) -> RunStatus:
    """Return the status of a run with a canary grader.

    ``rewards`` and ``scores`` have one value for each step. A little noise is added to the canary's scores.
    """
    noise = random.Random(0)
    history = [
        RewardPoint(step=i + 1, reward=value, graders={"watched": score + noise.gauss(0, 0.01)})
        for i, (value, score) in enumerate(zip(rewards, scores, strict=True))
    ]
    curve = Reward(latest=rewards[-1], best=max(rewards), history=history)
    return run(stage="training", reward=curve)


WATCHED = spec(graders=[{"name": "right", "numeric": {}}, {"name": "watched", "weight": 0, "math": {}}])

CASES: dict[str, tuple[RFTJobSpec, RunStatus, str, list[str]]] = {
    "reward-collapsed": (
        spec(),
        run(COLLAPSE, stage="training"),
        "spec.training.learningRate",
        ["from 0.20 to 0.73", "step 8", "to 0.10", "0.0001 to 5e-05"],
    ),
    "reward-levelled-off": (
        spec(),
        run(LEVEL),
        "spec.training.learningRate",
        ["0.17", "0.50", "from 0.0001 to 0.00015"],
    ),
    "slow-at-low-learning-rate": (
        spec(training={"learningRate": 2e-5}),
        run(FLAT),
        "spec.training.learningRate",
        ["0.20", "2e-05", "0.0001"],
    ),
    "never-learned": (spec(), run(FLAT), "spec.training.loraRank", ["0.20", "loraRank 8", "16"]),
    "still-climbing": (
        spec(),
        run(CLIMB),
        "spec.training.epochs",
        ["from 0.48 to 0.64", "from 1 to 2"],
    ),
    "stopped-while-climbing": (
        spec(stop={"maxSteps": 16}),
        run(CLIMB),
        "spec.stop.maxSteps",
        ["from 0.48 to 0.64", "maxSteps 16"],
    ),
    "epochs-stopped-helping": (
        spec(training={"epochs": 4, "learningRate": 2e-4}),
        run(LEVEL, progress=Progress(step=16, epoch=5, stage="finished")),
        "spec.training.epochs",
        ["0.50 in epoch 3", "0.50 in epoch 4", "lower epochs from 4 to 3"],
    ),
    "overfitted": (
        spec(training={"epochs": 3}),
        run(CLIMB, stage="training", evaluation=held_out(-0.02)),
        "spec.training.epochs",
        ["rose by 0.48", "-0.02", "from 3 to 1"],
    ),
    "overfitted-in-one-epoch": (
        spec(),
        run(CLIMB, stage="training", evaluation=held_out(0.0)),
        "spec.training.loraRank",
        ["+0.00", "from 8 to 4"],
    ),
    "canary-fell": (
        WATCHED,
        with_canary([0.1 + 0.03 * i for i in range(20)], [0.8] * 10 + [0.4] * 10),
        "spec.graders.weight",
        ["step 8", "from 0.21 to 0.56", "watched", "from 0.80 to 0.40", "standard errors"],
    ),
    "completions-cut": (
        spec(),
        run(metrics=Metrics(truncated_fraction=0.23)),
        "spec.sampling.maxTokens",
        ["23%", "2048", "4096"],
    ),
    "max-tokens-unused": (
        spec(),
        run(metrics=Metrics(truncated_fraction=0.0, completion_tokens=40.0)),
        "spec.sampling.maxTokens",
        ["40 tokens", "2048", "1024"],
    ),
    "groups-score-alike": (
        spec(),
        run(metrics=Metrics(zero_variance_fraction=0.6)),
        "spec.sampling.numRollouts",
        ["60%", "all 4", "to 6"],
    ),
    "sampler-drifts": (
        spec(),
        run(metrics=Metrics(mismatch_kl=0.05)),
        "spec.sampling.engine",
        ["0.05", "0.02", "vllm"],
    ),
    "diversity-lost": (
        spec(),
        run(metrics=Metrics(entropy=0.05)),
        "spec.sampling.temperature",
        ["0.050 nats", "0.7 to 1"],
    ),
}


@pytest.mark.parametrize("rule", RUN_RULES, ids=lambda rule: rule.id)
def test_each_rules_message_has_its_numbers_and_the_field_to_change(rule: RunRule) -> None:
    found_spec, found_run, parameter, words = CASES[rule.id]
    found = said(found_spec, found_run)
    assert set(found) == {rule.id}
    assert found[rule.id][0] == parameter
    assert all(word in found[rule.id][1] for word in words), found[rule.id][1]


def test_a_run_with_few_steps_gets_no_advice() -> None:
    assert recommend(spec(), RunStatus()) == []
    assert recommend(spec(), RFTJobStatus()) == []
    assert recommend(spec(), run(COLLAPSE[: MIN_POINTS - 1])) == []


def test_the_operators_status_gives_the_same_advice_as_the_trainers() -> None:
    status = RFTJobStatus(reward=reward(COLLAPSE))
    assert [r.rule for r in recommend(spec(), status)] == ["reward-collapsed"]


def test_a_reward_that_levels_off_near_the_end_triggers_no_rule() -> None:
    curve = [0.05 * i for i in range(14)] + [0.67, 0.68, 0.69, 0.7, 0.7, 0.7]
    found = said(spec(), run(curve, evaluation=held_out(0.4)))
    assert "reward-levelled-off" not in found
    assert "reward-collapsed" not in found
    assert "still-climbing" not in found


@pytest.mark.parametrize("values", [CLIMB, LEVEL])
def test_a_stop_rule_that_ends_the_last_epoch_early_says_nothing_about_epochs(values: list[float]) -> None:
    early = run(values, progress=Progress(step=16, epoch=2, stage="finished"))
    found = said(spec(training={"epochs": 2, "learningRate": 2e-4}, stop={"maxGpuHours": 1}), early)
    assert not {"still-climbing", "epochs-stopped-helping"} & set(found)


def test_noise_is_not_taken_for_a_trend() -> None:
    noise = random.Random(3)
    flat = run([0.5 + noise.uniform(-0.05, 0.05) for _ in range(50)])
    steady = run([0.2 + 0.4 * (i / 50) ** 0.5 + noise.uniform(-0.05, 0.05) for i in range(50)])
    assert set(said(spec(), flat)) <= {"never-learned"}
    assert "reward-collapsed" not in said(spec(), steady)


def test_a_running_job_is_not_advised_to_train_longer() -> None:
    assert said(spec(), run(CLIMB, stage="training")) == {}


def test_a_solved_task_gets_no_advice() -> None:
    metrics = Metrics(entropy=0.01, zero_variance_fraction=0.98, truncated_fraction=0.0)
    assert said(spec(), run([0.96] * 16, metrics=metrics)) == {}


@pytest.mark.parametrize(
    ("sections", "found_run"),
    [
        ({"training": {"loraRank": 32}}, run(FLAT)),
        ({"training": {"epochs": 10}}, run(CLIMB)),
        ({"training": {"learningRate": 2e-4}}, run(LEVEL)),
        ({"sampling": {"numRollouts": 8}}, run(metrics=Metrics(zero_variance_fraction=0.6))),
        ({"sampling": {"temperature": 1.2}}, run(metrics=Metrics(entropy=0.05))),
        (
            {"sampling": {"maxTokens": 16384}, "training": {"batchSizeTokens": 65536}},
            run(metrics=Metrics(truncated_fraction=0.5)),
        ),
    ],
    ids=["rank", "epochs", "rate", "rollouts", "temperature", "tokens"],
)
def test_no_value_beyond_the_range_or_the_advised_limits_is_recommended(
    sections: dict[str, Any], found_run: RunStatus
) -> None:
    assert said(spec(**sections), found_run) == {}


def test_after_a_collapse_at_the_lowest_rate_the_best_checkpoint_is_recommended() -> None:
    (message,) = [m for _, m in said(spec(training={"learningRate": 1e-5}), run(COLLAPSE)).values()]
    assert message.endswith("use the best checkpoint")


def test_advice_for_more_tokens_includes_the_context_if_they_do_not_fit() -> None:
    tight = spec(training={"maxContextLength": 3000})
    (message,) = [m for _, m in said(tight, run(metrics=Metrics(truncated_fraction=0.2))).values()]
    assert "maxContextLength" in message


def test_a_curve_is_summarized_by_the_means_of_its_quarters() -> None:
    curve = curve_of(reward([0.0, 0.0, 0.2, 0.2, 0.4, 0.4, 0.6, 0.6]))
    assert curve is not None
    assert curve.quarters == pytest.approx((0.0, 0.2, 0.4, 0.6))
    assert curve.peak == pytest.approx(1.6 / 3)
    assert curve.peak_step == 7


@pytest.mark.parametrize(
    ("rewards", "scores"),
    [
        ([0.1 + 0.03 * i for i in range(20)], [0.6] * 20),  # the canary only varies
        ([0.1 + 0.03 * i for i in range(20)], [0.6] * 10 + [0.57] * 10),  # the canary falls by too little
        ([0.1 + 0.03 * i for i in range(20)], [0.4] * 10 + [0.8] * 10),  # the canary rises too
        ([0.5] * 20, [0.8] * 10 + [0.4] * 10),  # the reward does not rise
        ([0.1 + 0.03 * i for i in range(12)], [0.8] * 6 + [0.4] * 6),  # too few points
    ],
)
def test_a_canary_that_does_not_fall_beyond_noise_while_the_reward_rises_is_no_advice(
    rewards: list[float], scores: list[float]
) -> None:
    assert "canary-fell" not in said(WATCHED, with_canary(rewards, scores))


def test_a_canary_of_noise_alone_gives_no_advice_at_any_step() -> None:
    noise = random.Random(1)
    scores = [noise.gauss(0.6, 0.1) for _ in range(50)]
    rewards = [0.2 + 0.012 * i + noise.gauss(0, 0.1) for i in range(50)]
    for length in range(16, 51):
        assert "canary-fell" not in said(WATCHED, with_canary(rewards[:length], scores[:length]))


def test_points_of_an_older_release_have_no_canary() -> None:
    assert "canary-fell" not in said(WATCHED, run(CLIMB))
