"""Builds the status of a run for the operator and ``status.yaml``. Writes events to standard output."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TextIO

from rft_advice import recommend
from rft_api.base import known
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
    Stage,
    Usage,
    thin,
)
from rft_run.config import RunConfig
from rft_run.events import Event
from rft_run.state import RunState
from rft_run.steps import StepRecord

REWARD_DIGITS = 4
"""Number of decimals of the rewards in the status, for readability. ``metrics.jsonl`` has all decimals."""


class Events:
    """Writes the events of a run, such as the end of a step, to standard output as JSON lines.

    ``rft run`` reads and displays them.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout

    def emit(self, event: Event) -> None:
        """Write one event as a JSON line. If no process reads the pipe any more, do nothing."""
        try:
            self._stream.write(event.as_line())
            self._stream.flush()
        except (BrokenPipeError, ValueError):
            pass


class Status:
    """The values of the run's status that are not in the run's state. The training loop sets them.

    ``snapshot`` returns the whole status.
    """

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

    def add_output(self, **paths: str) -> None:
        """Set fields of ``output``, the part of the status with the run's results.

        The arguments are the names of the fields and their values: paths, or the address of a copy.
        """
        self.output = self.output.model_copy(update=paths)

    def snapshot(self, state: RunState, records: Sequence[StepRecord]) -> RunStatus:
        """Return the whole status of the run. ``records``: the records of all its steps, oldest first."""
        last = records[-1] if records else None
        if last is not None and last.step_seconds is not None:
            seconds = last.step_seconds
            so_far = self._step_seconds
            self._step_seconds = seconds if so_far is None else 0.7 * so_far + 0.3 * seconds
        run = RunStatus(
            **known(
                progress=self._progress(state),
                reward=_reward(records),
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
        resources = self._config.pod_spec.resources
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
                forged_replies=dict(state.forged_replies) or None,
                cost=None if price is None else price * state.gpu_seconds / 3600,
                expected_gpu_hours=hours,
                expected_cost=None if price is None or hours is None else price * hours,
            )
        )

    def _expected_gpu_hours(self, state: RunState) -> float | None:
        """Return the expected GPU-hours of the whole run at the current speed of the steps.

        None: it is not known yet, or the run has no GPUs.
        """
        left = self._seconds_left(state)
        if left is None or not self._config.gpus:
            return None
        return (state.gpu_seconds + self._config.gpus * left) / 3600

    def _seconds_left(self, state: RunState) -> float | None:
        """Return how many seconds the remaining steps take at the current speed. None: not known yet."""
        if self.stage == "finished":
            return 0.0
        if self.total_steps is None or self._step_seconds is None:
            return None
        return max(0, self.total_steps - state.step) * self._step_seconds


def curve(records: Sequence[StepRecord]) -> list[RewardPoint]:
    """Return the reward curve: a point with reward and mean grader scores for each step.

    Steps without a graded rollout are left out.
    """
    return [
        RewardPoint(
            step=record.step,
            reward=round(record.reward, REWARD_DIGITS),
            graders={name: round(score, REWARD_DIGITS) for name, score in record.graders.items()},
        )
        for record in records
        if record.reward is not None
    ]


def _reward(records: Sequence[StepRecord]) -> Reward | None:
    """Return the rewards for the status: latest, best and first reward, and a curve with fewer points.

    None: no step has a graded rollout.
    """
    points = curve(records)
    if not points:
        return None
    return Reward(
        latest=points[-1].reward,
        best=max(point.reward for point in points),
        baseline=points[0].reward,
        graders=next(record.graders for record in reversed(records) if record.reward is not None),
        history=thin(points),
    )


def _metrics(record: StepRecord) -> Metrics:
    """Return the metrics of a step for the status. They are the fields of the record that ``Metrics`` has."""
    numbers = {name: getattr(record, name) for name in Metrics.model_fields}
    seconds = {name: record.phases[name] for name in PhaseSeconds.model_fields if name in record.phases}
    return Metrics(**known(**numbers | {"phases": PhaseSeconds(**seconds) if seconds else None}))
