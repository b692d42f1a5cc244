"""Passes what happens in a run on to every place where the run can be watched.

The places are the run's folder, the status (of the RFTJob, or ``status.yaml``), the trackers, and standard
output. An error of the folder ends the run (VolumeError), because its records could not be resumed. The other
places drop what they cannot deliver, and never delay the run.
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
    """All places where one attempt at a run can be watched.

    ``state`` returns the run's state; ``attempt`` is the number of the attempt. ``status`` collects what is
    reported, and the loop sets its values.
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
        """The records of the steps so far, those of earlier attempts included."""
        return self._steps.records if self._steps is not None else ()

    def started(self) -> None:
        """The attempt begins, from the checkpoint of the state's step. Raises VolumeError.

        An earlier attempt may have recorded later steps. These records are removed: the steps are made again.
        """
        step = self._state().step
        self.status.resumed_from_step = step
        if step:
            self._events.emit(ResumedEvent(event="resumed", step=step))
        self._steps = StepsFile(self._folder, step)
        remove_later(self._folder, step)
        self._trackers.start(step, self._attempt, self.records)

    def stage(self, stage: Stage) -> None:
        """The attempt enters a stage. Raises Fenced."""
        self.status.stage = stage
        self._events.emit(StageEvent(event="stage", stage=stage))
        self._reporter.publish(self.snapshot(), force=True)

    def preflight(self, found: list[Recommendation]) -> None:
        """Show the findings of the preflight and report them at once. Raises Fenced."""
        self.status.preflight = found
        for finding in found:
            self._events.emit(
                FindingEvent(event="finding", parameter=finding.parameter, message=finding.message)
            )
        if found:
            self._reporter.publish(self.snapshot(), force=True)

    def step(self, record: StepRecord, groups: Sequence[Group]) -> None:
        """A step is done. Raises VolumeError, Fenced."""
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
        """A held-out evaluation is done. Raises VolumeError."""
        scores.save(self._folder)
        self._trackers.evaluation(scores)
        self._events.emit(
            EvaluationEvent(
                event="evaluation", step=scores.step, reward=scores.mean_reward, rows=len(scores.lines)
            )
        )

    def report(self) -> RunStatus:
        """Report the status as it is now, and return it. Raises Fenced."""
        snapshot = self.snapshot()
        self._reporter.publish(snapshot)
        return snapshot

    def snapshot(self) -> RunStatus:
        """Return the status as it is now."""
        return self.status.snapshot(self._state(), self.records)

    def ended(self, ending: Ending) -> None:
        """The attempt has ended: report it, and close the run at the trackers."""
        snapshot = self.snapshot()
        self._reporter.publish(snapshot, ending=ending, force=True)
        self._trackers.finish(snapshot, ending)


def end_event(ending: Ending) -> EndEvent:
    """Return the event of an ending. It is emitted even if the run could not begin."""
    return EndEvent(
        event="end", exit_code=int(ending.exit_code), reason=ending.reason, message=ending.message
    )
