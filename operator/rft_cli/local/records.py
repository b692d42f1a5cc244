"""Reads the files in a run's folder for the commands of ``rft``: metrics, rollouts, evaluations, statuses and
checkpoints.

If a file cannot be read, the functions raise UserError, and the message has the file's path.
"""

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
    """Return the records of all training steps in the file ``metrics.jsonl``, or an empty list if there is no
    file.

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
    """Return the highest step number in the records ``found``, or 0 if there are no records."""
    return max((record.step for record in found), default=0)


def adapter_config(adapter: Path) -> dict[str, object]:
    """Return the JSON object in the ``adapter_config.json`` of the folder ``adapter``. Return an empty object
    if the file has another JSON value.

    Raises:
        UserError: if the file is missing or is not JSON.
    """
    path = adapter_config_of(adapter)
    try:
        body = run_files.json_of(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}", UNREADABLE) from error
    return body if isinstance(body, dict) else {}


def commit_in(config: Mapping[str, object], default: str | None = None) -> str | None:
    """Return the commit on the hub of an adapter's base model. ``config`` is the JSON object in the adapter's
    ``adapter_config.json``.

    Return ``default`` if ``config`` does not have the commit.
    """
    found = config.get("revision")  # here the trainer writes the commit
    return found if isinstance(found, str) else default


def rollouts(path: Path) -> list[RolloutRecord]:
    """Return all rollouts in ``path``, the file with the rollouts of one step.

    Raises UserError if the file is missing or invalid.
    """
    with _explained(path):
        return read_rollouts(path)


def rollouts_in_turn(path: Path) -> Iterator[RolloutRecord]:
    """Yield the rollouts in ``path``, the file with the rollouts of one step, one by one to save memory.

    Raises:
        UserError: if the file is missing or invalid.
    """
    with _explained(path):
        yield from each_rollout(path)


def status(path: Path) -> RFTJobStatus:
    """Return the status of a run from its ``status.yaml``, or an empty status if there is no file yet.

    Raises:
        UserError: if the file exists, but cannot be read as a status.
    """
    with _explained(path):
        return read_status(path)


def evaluation(folder: RunFolder, step: int) -> EvaluationRecord:
    """Return the held-out evaluation that a run made after a training step. Step 0 is the starting policy.

    Raises UserError if the file is missing or invalid.
    """
    with _explained(folder.evaluation_of(step)):
        return read_evaluation(folder, step)


def state(path: Path) -> RunState:
    """Return the progress of the run that a checkpoint has saved. ``path`` is the checkpoint's file
    ``state.json``. Raises UserError if the file is missing or invalid.
    """
    try:
        return read_state(path.parent)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: is not a checkpoint's state: {error}", UNREADABLE) from error


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Convert an error of the ``with`` block, which reads the file ``path`` by functions of rft_run, into a
    UserError.
    """
    try:
        yield
    except (UnreadableSteps, UnreadableRollouts, UnreadableStatus, UnreadableEvaluation) as error:
        raise UserError(str(error), UNREADABLE) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}", UNREADABLE) from error
