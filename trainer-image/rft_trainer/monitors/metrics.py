"""Builds the row of ``metrics.jsonl`` of one step."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from rft_run.state import RunState
from rft_trainer.learn.update import UpdateMetrics
from rft_trainer.rollout.groups import SampledBatch, reward


def metrics_row(
    state: RunState,
    batch: SampledBatch,
    result: UpdateMetrics,
    learning_rate: float,
    phase_seconds: Mapping[str, float],
    step_seconds: float,
    attempt: int,
) -> dict[str, Any]:
    """Return the row of the step that was just made, ``state.step``. NaN becomes None."""
    rollouts = [rollout for group in batch.groups for rollout in group.rollouts]
    accepted = [rollout for group in batch.groups for rollout in group.accepted]
    kept = [group for group in batch.groups if not group.dropped]
    rewards = [reward(rollout) for rollout in accepted]
    generated = sum(len(rollout.generated.token_ids) for rollout in rollouts)
    trained = sum(len(rollout.generated.token_ids) for rollout in accepted)
    return {
        "step": state.step,
        "reward": _mean(rewards),
        "rewardStd": _std(rewards),
        "graders": batch.scores.grader_means,
        "loss": _finite(result.loss),
        "kl": _finite(result.kl),
        "entropy": _finite(result.entropy),
        "clipFraction": _finite(result.clip_fraction),
        "gradNorm": _finite(result.grad_norm),
        "mismatchKl": _finite(result.mismatch_kl),
        "mismatchMeanAbs": _finite(result.mismatch_mean_abs),
        "outsideFilterTokens": result.outside_filter_tokens,
        "truncatedFraction": _mean([float(rollout.generated.truncated) for rollout in rollouts]),
        "zeroVarianceFraction": _mean([float(group.flat) for group in kept]),
        "completionTokens": trained / len(accepted) if accepted else None,
        "groups": len(kept),
        "rollouts": len(accepted),
        "droppedGroups": len(batch.groups) - len(kept),
        "forwardTokens": result.forward_tokens,
        "learningRate": learning_rate,
        "epoch": state.position.epoch,
        "adapterVersion": state.adapter_version,
        "tokensPerSecond": generated / batch.rollout_seconds if batch.rollout_seconds > 0 else None,
        "stepSeconds": step_seconds,
        "phases": dict(phase_seconds),
        "attempt": attempt,
        "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _mean(values: list[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _std(values: list[float]) -> float | None:
    if len(values) < 2:
        return None
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
