"""Progress of a run: the cumulative status, and events as JSON lines on standard output."""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from rft_advice import recommend
from rft_api.status import (
    EvaluationResult,
    Metrics,
    Output,
    PhaseSeconds,
    Progress,
    Recommendation,
    Reward,
    RewardPoint,
    RunStatus,
    Usage,
    thin,
)
from rft_run.config import RunConfig
from rft_run.state import RunState

REWARD_DIGITS = 4
"""Decimals of the rewards in the status, for readability; ``metrics.jsonl`` has all."""

Stage = Literal["preparing", "evaluatingBase", "training", "evaluatingTuned", "finished"]


def known(**fields: Any) -> dict[str, Any]:
    """Return the fields that are not None, because the API's models refuse nulls as the API server does."""
    return {name: value for name, value in fields.items() if value is not None}


class Events:
    """Writes ``{"event": "step", ...}`` lines; ``rft run`` turns them into its live display."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout

    def emit(self, event: str, **fields: Any) -> None:
        """Write one line. A closed pipe is ignored: training goes on without a reader."""
        try:
            self._stream.write(json.dumps({"event": event, **fields}, default=str) + "\n")
            self._stream.flush()
        except (BrokenPipeError, ValueError):
            pass


class Status:
    """Collects the values of the run's status; ``snapshot`` returns it as the API's model."""

    def __init__(self, config: RunConfig, attempt: int) -> None:
        self._config = config
        self._attempt = attempt
        self.stage: Stage = "preparing"
        self.total_steps: int | None = None
        self.total_steps_estimated = True
        self.resumed_from_step = 0
        self.dropped_prompts = 0
        self.samplers_restarted = 0
        self.evaluation: EvaluationResult | None = None
        self.preflight: list[Recommendation] = []
        self.output = Output(folder=config.run_dir)
        self._step_seconds: float | None = None

    def snapshot(self, state: RunState, rows: Sequence[Mapping[str, Any]]) -> RunStatus:
        """Build the status from the run's state and its metric rows, oldest first."""
        last = rows[-1] if rows else None
        if last is not None:
            seconds = float(last["stepSeconds"])
            so_far = self._step_seconds
            self._step_seconds = seconds if so_far is None else 0.7 * so_far + 0.3 * seconds
        run = RunStatus(
            **known(
                progress=self._progress(state),
                reward=_reward(rows),
                evaluation=self.evaluation,
                metrics=_metrics(last) if last is not None else None,
                usage=self._usage(state),
                output=self.output,
            )
        )
        # Always set: an empty list removes earlier recommendations from the status.
        advice = [*self.preflight, *recommend(self._config.spec, run)]
        return run.model_copy(update={"recommendations": advice})

    def _progress(self, state: RunState) -> Progress:
        total = self.total_steps
        percent = 100.0 if self.stage == "finished" else 0.0
        if total and self.stage != "finished":
            percent = min(99.0, 100.0 * state.step / total)
        return Progress(
            **known(
                step=state.step,
                total_steps=total,
                total_steps_estimated=self.total_steps_estimated,
                epoch=state.position.epoch,
                percent=percent,
                eta_seconds=self._seconds_left(state),
                attempt=self._attempt,
                resumed_from_step=self.resumed_from_step,
                stage=self.stage,
                samplers_restarted=self.samplers_restarted,
                updated_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            )
        )

    def _usage(self, state: RunState) -> Usage:
        resources = self._config.spec.resources
        price = resources.price_per_gpu_hour if resources else None
        hours = self._expected_gpu_hours(state)
        return Usage(
            **known(
                gpu_seconds=state.gpu_seconds,
                prompt_tokens=state.prompt_tokens,
                completion_tokens=state.completion_tokens,
                dropped_prompts=self.dropped_prompts,
                dropped_groups=state.dropped_groups,
                grader_errors=dict(state.grader_errors) or None,
                cost=None if price is None else price * state.gpu_seconds / 3600,
                expected_gpu_hours=hours,
                expected_cost=None if price is None or hours is None else price * hours,
            )
        )

    def _expected_gpu_hours(self, state: RunState) -> float | None:
        """Return the GPU-hours used and still expected, at the speed so far; None while not known."""
        left = self._seconds_left(state)
        if left is None or not self._config.gpus:
            return None
        return (state.gpu_seconds + self._config.gpus * left) / 3600

    def _seconds_left(self, state: RunState) -> float | None:
        """Return the seconds of the remaining steps at the speed so far; None while not known."""
        if self.stage == "finished":
            return 0.0
        if self.total_steps is None or self._step_seconds is None:
            return None
        return max(0, self.total_steps - state.step) * self._step_seconds


def _reward(rows: Sequence[Mapping[str, Any]]) -> Reward | None:
    """Return the reward curve. Steps without a graded rollout have no point."""
    graded = [row for row in rows if row["reward"] is not None]
    if not graded:
        return None
    points = [RewardPoint(step=row["step"], reward=round(row["reward"], REWARD_DIGITS)) for row in graded]
    return Reward(
        latest=points[-1].reward,
        best=max(point.reward for point in points),
        baseline=points[0].reward,
        graders=graded[-1]["graders"],
        history=thin(points),
    )


def _metrics(row: Mapping[str, Any]) -> Metrics:
    """Return the metrics of the last step from its row."""
    return Metrics(
        **known(
            loss=row["loss"],
            kl=row["kl"],
            entropy=row["entropy"],
            clip_fraction=row["clipFraction"],
            truncated_fraction=row["truncatedFraction"],
            zero_variance_fraction=row["zeroVarianceFraction"],
            mismatch_kl=row["mismatchKl"],
            grad_norm=row["gradNorm"],
            completion_tokens=row["completionTokens"],
            tokens_per_second=row["tokensPerSecond"],
            step_seconds=row["stepSeconds"],
            phases=PhaseSeconds.model_validate(row["phases"]),
        )
    )
