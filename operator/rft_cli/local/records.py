"""Reads the records in the folder of a run. If a file cannot be read, a UserError names its path."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rft_api.status import RFTJobStatus
from rft_cli.errors import UNREADABLE, UserError
from rft_run import run_files
from rft_run.checkpoint import read_state
from rft_run.evaluation import EvaluationRecord, UnreadableEvaluation, read_evaluation
from rft_run.folder import RunFolder, adapter_config_of
from rft_run.rollouts import RolloutRecord, UnreadableRollouts, each_rollout, read_rollouts
from rft_run.state import RunState
from rft_run.status_file import UnreadableStatus, read_status
from rft_run.steps import StepRecord, UnreadableSteps, read_steps


def steps(path: Path) -> list[StepRecord]:
    """Return the records of all steps in a ``metrics.jsonl``, or an empty list if there is no file.

    Raises:
        UserError: if a line is not the record of a step, or has no reward.
    """
    with _explained(path):
        records = read_steps(path)
    for number, record in enumerate(records, start=1):
        if "reward" not in record.model_fields_set:
            raise UserError(f"{path}: line {number}: has no reward", UNREADABLE)
    return records


def last_step(found: Iterable[StepRecord]) -> int:
    """Return the highest step number in the records of a run's steps, or 0 if there are no records."""
    return max((record.step for record in found), default=0)


def adapter_config(adapter: Path) -> dict[str, object]:
    """Return the JSON object in an adapter's ``adapter_config.json``.

    Return an empty object if the file has another JSON value.

    Raises:
        UserError: if the configuration cannot be read.
    """
    path = adapter_config_of(adapter)
    try:
        body = run_files.json_of(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}", UNREADABLE) from error
    return body if isinstance(body, dict) else {}


def commit_in(config: Mapping[str, object], default: str | None = None) -> str | None:
    """Return the commit of an adapter's base model, from the adapter's configuration.

    Return ``default`` if the configuration does not have the commit.
    """
    found = config.get("revision")  # here the trainer writes the commit
    return found if isinstance(found, str) else default


def rollouts(path: Path) -> list[RolloutRecord]:
    """Return the rollouts in the file of a step. Raises UserError if ``path`` is not a file of rollouts."""
    with _explained(path):
        return read_rollouts(path)


def rollouts_in_turn(path: Path) -> Iterator[RolloutRecord]:
    """Yield the rollouts in the file of a step one by one, so that they need not all fit into memory.

    Raises:
        UserError: if ``path`` is not a file of rollouts.
    """
    with _explained(path):
        yield from each_rollout(path)


def status(path: Path) -> RFTJobStatus:
    """Return the status of a run, or an empty status if there is none yet.

    Raises:
        UserError: if the file exists but is not a status.
    """
    with _explained(path):
        return read_status(path)


def evaluation(folder: RunFolder, step: int) -> EvaluationRecord:
    """Return the held-out evaluation after a step. Raises UserError if it cannot be read."""
    with _explained(folder.evaluation_of(step)):
        return read_evaluation(folder, step)


def state(path: Path) -> RunState:
    """Return the state of the run in a checkpoint. ``path`` is the file with the state, in the checkpoint's
    folder. Raises UserError if the state cannot be read.
    """
    try:
        return read_state(path.parent)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: is not a checkpoint's state: {error}", UNREADABLE) from error


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Convert the errors of the functions of rft_run that read files into a UserError."""
    try:
        yield
    except (UnreadableSteps, UnreadableRollouts, UnreadableStatus, UnreadableEvaluation) as error:
        raise UserError(str(error), UNREADABLE) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}", UNREADABLE) from error
