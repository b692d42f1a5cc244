"""Defines the events that a trainer prints on standard output for ``rft run``. Each event is one line of
JSON.
"""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from rft_api.status import Stage
from rft_run.record import Record
from rft_run.steps import StepRecord


class StageEvent(Record):
    """A stage of the attempt begins, such as the evaluation of the base model."""

    event: Literal["stage"]
    stage: Stage


class ResumedEvent(Record):
    """The run continues from the checkpoint of ``step``."""

    event: Literal["resumed"]
    step: int


class StepEvent(StepRecord):
    """A training step has ended. The event has the metrics of the step, and the progress of the run."""

    event: Literal["step"]
    total_steps: int | None = None
    total_steps_estimated: bool = True
    eta_seconds: float | None = None


class EvaluationEvent(Record):
    """A held-out evaluation has ended. Step 0 is the evaluation of the starting policy."""

    event: Literal["evaluation"]
    step: int
    reward: float
    rows: int


class FindingEvent(Record):
    """The preflight, before the first step, has found a reason why training may have no effect."""

    event: Literal["finding"]
    parameter: str
    message: str


class EndEvent(Record):
    """The attempt ends. This is always the last event of an attempt."""

    event: Literal["end"]
    exit_code: int
    reason: str
    message: str


Event = StageEvent | ResumedEvent | StepEvent | EvaluationEvent | FindingEvent | EndEvent
_EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])


def parse(line: str) -> Event | None:
    """Return the event in a line of output.

    Return None if the line is not an event, for example if a library printed it.
    """
    if not line.startswith("{"):
        return None
    try:
        return _EVENT.validate_json(line)
    except ValueError:
        return None
