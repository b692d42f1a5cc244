"""Publishes the steps, evaluations and stages of a run to all outputs of the run:

- the run's folder
- the status of the RFTJob, or ``status.yaml``
- the trackers, such as MLflow
- standard output

If the folder cannot be written, the run ends (VolumeError), because it could not be resumed. The other
outputs never delay the run. Data that cannot be delivered to them is lost.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from rft_api.status import Recommendation, RunStatus, Stage
from rft_run.config import RunConfig
from rft_run.events import EndEvent, EvaluationEvent, FindingEvent, ResumedEvent, StageEvent, StepEvent
from rft_run.folder import RunFolder
from rft_run.report import Ending
from rft_run.state import RunState
from rft_run.steps import StepRecord
from rft_trainer.evaluate import RowScores
from rft_trainer.monitors.progress import Events, Status
from rft_trainer.monitors.records import StepsFile, remove_later, save_rollouts
from rft_trainer.monitors.report import Reporter
from rft_trainer.monitors.tracking.trackers import Trackers
from rft_trainer.rollout.groups import Group


class Monitors:
    """Publishes the progress of one attempt to all outputs: folder, status, trackers, standard output.

    An attempt is one start of the trainer for a run.

    - ``attempt``: the number of the attempt.
    - ``state``: returns the current progress of the run.
    - ``status``: the attribute whose fields the training loop sets. Each report contains these fields.
    """

    def __init__(
        self,
        config: RunConfig,
        reporter: Reporter,
        events: Events,
        trackers: Trackers,
        state: Callable[[], RunState],
        attempt: int,
    ) -> None:
        self.status = Status(config, attempt)
        self._folder = RunFolder(Path(config.run_dir))
        self._reporter = reporter
        self._events = events
        self._trackers = trackers
        self._state = state
        self._attempt = attempt
        self._steps: StepsFile | None = None

    @property
    def records(self) -> Sequence[StepRecord]:
        """The records of all steps so far, including those of earlier attempts."""
        return self._steps.records if self._steps is not None else ()

    def started(self) -> None:
        """Publish that the attempt starts after the step of the run's state, or that it starts from step 0.

        An earlier attempt may have recorded later steps. These records are removed, because this attempt
        repeats the steps. Raises VolumeError.
        """
        step = self._state().step
        self.status.resumed_from_step = step
        if step:
            self._events.emit(ResumedEvent(event="resumed", step=step))
        self._steps = StepsFile(self._folder, step)
        remove_later(self._folder, step)
        self._trackers.start(step, self._attempt, self.records)

    def stage(self, stage: Stage) -> None:
        """Publish that the attempt enters a stage, such as ``training``.

        Raises Fenced if a newer attempt has replaced this one.
        """
        self.status.stage = stage
        self._events.emit(StageEvent(event="stage", stage=stage))
        self._reporter.publish(self.snapshot(), force=True)

    def preflight(self, found: list[Recommendation]) -> None:
        """Publish the findings of the preflight, which checks the rewards before training.

        Raises Fenced if a newer attempt has replaced this one.
        """
        self.status.preflight = found
        for finding in found:
            self._events.emit(
                FindingEvent(event="finding", parameter=finding.parameter, message=finding.message)
            )
        if found:
            self._reporter.publish(self.snapshot(), force=True)

    def step(self, record: StepRecord, groups: Sequence[Group]) -> None:
        """Save the record and the rollouts of a training step in the run's folder, and publish the record.

        Raises VolumeError, and Fenced if a newer attempt has replaced this one.
        """
        assert self._steps is not None
        self._steps.append(record)
        save_rollouts(self._folder, record.step, groups)
        self._trackers.step(record)
        progress = self.report().progress
        self._events.emit(
            StepEvent(
                event="step",
                total_steps=progress.total_steps,
                total_steps_estimated=progress.total_steps_estimated,
                eta_seconds=progress.eta_seconds,
                **dict(record),
            )
        )

    def evaluation(self, scores: RowScores) -> None:
        """Save the scores of a held-out evaluation in the run's folder, and publish their means.

        Raises VolumeError.
        """
        scores.save(self._folder)
        self._trackers.evaluation(scores)
        self._events.emit(
            EvaluationEvent(
                event="evaluation", step=scores.step, reward=scores.mean_reward, rows=len(scores.lines)
            )
        )

    def report(self) -> RunStatus:
        """Report the current status of the run to the operator or to ``status.yaml``, and return the status.

        Raises Fenced if a newer attempt has replaced this one.
        """
        snapshot = self.snapshot()
        self._reporter.publish(snapshot)
        return snapshot

    def snapshot(self) -> RunStatus:
        """Return the current status of the run, without publishing it."""
        return self.status.snapshot(self._state(), self.records)

    def ended(self, ending: Ending) -> None:
        """Report how the attempt ended, and close the run in the trackers (such as MLflow)."""
        snapshot = self.snapshot()
        self._reporter.publish(snapshot, ending=ending, force=True)
        self._trackers.finish(snapshot, ending)


def end_event(ending: Ending) -> EndEvent:
    """Return the last event of an attempt, with exit code and reason, for standard output.

    It is written even if the run could not begin.
    """
    return EndEvent(
        event="end", exit_code=int(ending.exit_code), reason=ending.reason, message=ending.message
    )
