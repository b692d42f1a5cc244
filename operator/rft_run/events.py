"""Defines the events that the trainer prints on standard output, one line of JSON for each event.

The command ``rft run`` starts the trainer, reads these events and shows the progress.
"""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from rft_api.status import Stage
from rft_run.record import Record
from rft_run.steps import StepRecord


class StageEvent(Record):
    """A new stage of the run begins, such as the training or the evaluation of the base model."""

    event: Literal["stage"]
    stage: Stage


class ResumedEvent(Record):
    """The trainer has loaded the checkpoint of ``step``, and continues the run from there."""

    event: Literal["resumed"]
    step: int


class StepEvent(StepRecord):
    """A training step has ended. The event has the step's metrics, the number of steps of the whole run, and
    the estimated time until its end.
    """

    event: Literal["step"]
    total_steps: int | None = None
    total_steps_estimated: bool = True
    eta_seconds: float | None = None


class EvaluationEvent(Record):
    """A held-out evaluation has ended. The event has the mean reward and the number of evaluated rows.

    ``step`` is the training step after which the policy was evaluated. 0 is the starting policy.
    """

    event: Literal["evaluation"]
    step: int
    reward: float
    rows: int


class FindingEvent(Record):
    """A check before the first training step (preflight) has found a reason why training may have no effect.

    ``parameter`` is the path of the spec's field to change.
    """

    event: Literal["finding"]
    parameter: str
    message: str


class EndEvent(Record):
    """The trainer ends. The event has its exit code and the reason. It is always the trainer's last event."""

    event: Literal["end"]
    exit_code: int
    reason: str
    message: str


Event = StageEvent | ResumedEvent | StepEvent | EvaluationEvent | FindingEvent | EndEvent
_EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])


def parse(line: str) -> Event | None:
    """Parse a line of the trainer's standard output. Return the event in it.

    Return None if the line is not an event, for example if a library printed it.
    """
    if not line.startswith("{"):
        return None
    try:
        return _EVENT.validate_json(line)
    except ValueError:
        return None
