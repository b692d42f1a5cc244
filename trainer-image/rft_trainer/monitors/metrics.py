"""Builds the record of one training step for ``metrics.jsonl``."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rft_api.status import PhaseSeconds
from rft_run.state import RunState
from rft_run.steps import StepRecord
from rft_trainer.learn.update_metrics import UpdateMetrics
from rft_trainer.rollout.groups import SampledBatch, reward
from rft_trainer.rollout.segments import Episode


def step_record(
    state: RunState,
    batch: SampledBatch,
    result: UpdateMetrics,
    staleness: int,
    learning_rate: float,
    phases: PhaseSeconds,
    step_seconds: float,
    attempt: int,
) -> StepRecord:
    """Return the record of the training step ``state.step``, which has just ended.

    - ``result``: the metrics of the update. NaN and infinity become None in the record.
    - ``staleness``: the number of the newest adapter version when the update began, minus the number of the
      version that sampled the batch.
    - ``phases``, ``step_seconds``: the seconds of each part of the step, and of the whole step.
    - ``attempt``: the number of the attempt, which is a start of the trainer for the run.
    """
    rollouts = [rollout for group in batch.groups for rollout in group.rollouts]
    accepted = [rollout for group in batch.groups for rollout in group.accepted]
    kept = batch.kept
    rewards = [reward(rollout) for rollout in accepted]
    generated = sum(len(rollout.generated.token_ids) for rollout in rollouts)
    trained = sum(len(rollout.generated.token_ids) for rollout in accepted)
    return StepRecord(
        step=state.step,
        reward=_mean(rewards),
        reward_std=_std(rewards),
        graders=batch.scores.grader_means,
        forged_replies=sum(batch.scores.forged_counts.values()),
        loss=_finite(result.loss),
        kl=_finite(result.kl),
        entropy=_finite(result.entropy),
        clip_fraction=_finite(result.clip_fraction),
        updates=result.steps,
        grad_norm=_finite(result.grad_norm),
        mismatch_kl=_finite(result.mismatch_kl),
        mismatch_mean_abs=_finite(result.mismatch_mean_abs),
        mismatch_bounded_fraction=_finite(result.bounded_fraction),
        staleness=staleness,
        outside_filter_tokens=result.outside_filter_tokens,
        truncated_fraction=_mean([float(rollout.generated.truncated) for rollout in rollouts]),
        zero_variance_fraction=_mean([float(group.flat) for group in kept]),
        completion_tokens=trained / len(accepted) if accepted else None,
        groups=len(kept),
        rollouts=len(accepted),
        dropped_groups=len(batch.groups) - len(kept),
        refilled_groups=batch.refilled,
        overlong_penalty=_mean([rollout.penalty for rollout in accepted]),
        **of_episodes([rollout.generated.episode for rollout in rollouts]),
        forward_tokens=result.forward_tokens,
        learning_rate=learning_rate,
        epoch=state.position.epoch,
        adapter_version=state.adapter_version,
        tokens_per_second=generated / batch.rollout_seconds if batch.rollout_seconds > 0 else None,
        step_seconds=step_seconds,
        phases=phases.dump(),
        attempt=attempt,
        time=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def of_episodes(episodes: Sequence[Episode | None]) -> dict[str, Any]:
    """Return metrics of a step's rollouts of several turns, such as the mean number of turns.

    ``episodes``: the course of each rollout. None: the rollout is a single answer. If all are single answers,
    return {}.
    """
    played = [episode for episode in episodes if episode is not None]
    if not played:
        return {}
    seconds = math.fsum(episode.seconds for episode in played)
    waited = math.fsum(episode.waiting_seconds for episode in played)
    return {
        "turns": _mean([float(episode.turns) for episode in played]),
        "tool_calls": _mean([float(episode.tool_calls) for episode in played]),
        "tool_errors": sum(episode.tool_errors for episode in played),
        "environment_errors": sum(_failed(episode) for episode in played),
        "refused_requests": sum(episode.refused for episode in played),
        "limited_fraction": _mean([float(episode.limit is not None) for episode in played]),
        "environment_fraction": waited / seconds if seconds > 0 else None,
    }


def _failed(episode: Episode) -> bool:
    return episode.reward is not None and isinstance(episode.reward.outcome, ValueError)


def _mean(values: list[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _std(values: list[float]) -> float | None:
    if len(values) < 2:
        return None
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
