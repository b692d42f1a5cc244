"""Checks whether the checkpoints and adapters in a run's folder can be used. It does not need torch."""

from collections.abc import Callable
from pathlib import Path

from rft_run import run_files
from rft_run.adapter_config import config_problem
from rft_run.folder import (
    RunFolder,
    adapter_config_of,
    adapter_of,
    adapter_weights_of,
    pickle_of,
    state_of,
    tensors_of,
    values_of,
)
from rft_run.state import RunState
from rft_run.tensors import check_torch_file, safetensors_header

_ABSENT = (FileNotFoundError, IsADirectoryError, NotADirectoryError)


def read_state(checkpoint: Path) -> RunState:
    """Return the progress of the run from ``state.json`` in the folder of a checkpoint.

    Raises OSError if the file cannot be read, and ValueError if its content is invalid.
    """
    return RunState.from_json(run_files.json_of(state_of(checkpoint)))


def is_of_old_release(checkpoint: Path) -> bool:
    """Return whether an older release wrote the checkpoint. Such releases saved the tensors with torch.save;
    newer ones use safetensors.
    """
    return pickle_of(checkpoint).exists() and not tensors_of(checkpoint).exists()


def adapter_problem(adapter: Path) -> str | None:
    """Check the files in an adapter's folder. Return a message with the first problem, or None if the adapter
    can be used.

    A problem is a missing, incomplete or unsafe file, or a symbolic link. Raises OSError if the disk fails.
    """
    return _first_problem(
        (adapter, run_files.refuse_link),
        (adapter_config_of(adapter), _check_config),
        (adapter_weights_of(adapter), safetensors_header),
    )


def _check_config(file: Path) -> None:
    if problem := config_problem(run_files.json_of(file)):
        raise ValueError(problem)


def checkpoint_problem(folder: RunFolder, step: int) -> str | None:
    """Check all files of the checkpoint of a step. Return a message with the first problem, or None if the
    checkpoint can be used.

    The files of the adapter are checked too, because ``rft export`` may copy them.

    Raises OSError if the disk fails. The checkpoint may be usable when the disk works again.
    """
    checkpoint = folder.checkpoint_of(step)

    def check_state(_file: Path) -> None:
        if (found := read_state(checkpoint).step) != step:
            raise ValueError(f"the file has the state of step {found}, not of step {step}")

    problem = _first_problem(
        (checkpoint, run_files.refuse_link),
        (state_of(checkpoint), check_state),
        *(
            [(pickle_of(checkpoint), check_torch_file)]
            if is_of_old_release(checkpoint)
            else [(tensors_of(checkpoint), safetensors_header), (values_of(checkpoint), run_files.json_of)]
        ),
    )
    return problem or adapter_problem(adapter_of(checkpoint))


def newest_usable(folder: RunFolder) -> int | None:
    """Return the highest step whose checkpoint can be used, or None if no checkpoint can be used.

    Raises OSError if the disk fails.
    """
    steps = reversed(folder.steps_with_checkpoint())
    return next((step for step in steps if checkpoint_problem(folder, step) is None), None)


def _first_problem(*checks: tuple[Path, Callable[[Path], object]]) -> str | None:
    for file, check in checks:
        try:
            check(file)
        except _ABSENT:
            return f"{file}: is missing"
        except ValueError as error:  # invalid JSON or UTF-8, IncompleteTensors, UnreadableFile
            return f"{file}: {error}"
    return None
