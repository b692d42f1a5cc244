"""Reads the records in a run's folder. If a file cannot be read, raises a UserError with its path."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rft_api.status import RFTJobStatus
from rft_cli.errors import UNREADABLE, UserError
from rft_run.rollouts import RolloutRecord, UnreadableRollouts, read_rollouts
from rft_run.state import RunState
from rft_run.status_file import UnreadableStatus, read_status
from rft_run.steps import StepRecord, UnreadableSteps, read_steps


def steps(path: Path) -> list[StepRecord]:
    """Return the records of all steps in a ``metrics.jsonl``; none where there is no file.

    Raises:
        UserError: a line is not the record of a step, or does not say the reward.
    """
    with _explained(path):
        records = read_steps(path)
    for number, record in enumerate(records, start=1):
        if "reward" not in record.model_fields_set:
            raise UserError(f"{path}: line {number}: has no reward", UNREADABLE)
    return records


def rollouts(path: Path) -> list[RolloutRecord]:
    """Return the rollouts of a step. Raises UserError if ``path`` is not a file of rollouts."""
    with _explained(path):
        return read_rollouts(path)


def status(path: Path) -> RFTJobStatus:
    """Return the status of a run; an empty status if there is none yet.

    Raises:
        UserError: the file exists but is not a status.
    """
    with _explained(path):
        return read_status(path)


def state(path: Path) -> RunState:
    """Return the state in a checkpoint. Raises UserError if ``path`` is not a checkpoint."""
    try:
        return RunState.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is not a checkpoint's state: {error}", UNREADABLE) from error


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Convert the errors of rft_run's readers into a UserError."""
    try:
        yield
    except (UnreadableSteps, UnreadableRollouts, UnreadableStatus) as error:
        raise UserError(str(error), UNREADABLE) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}", UNREADABLE) from error
