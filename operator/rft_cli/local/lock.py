"""Locks a run's folder, so that two runs cannot use it at the same time."""

import contextlib
import fcntl
from collections.abc import Iterator

from rft_cli.errors import UNREADABLE, UserError
from rft_run.folder import RunFolder


@contextlib.contextmanager
def locked(folder: RunFolder) -> Iterator[None]:
    """Make the folder of a run and lock it, so that no second command uses it for training.

    Raises:
        UserError: if the folder cannot be written, or another command uses it.
    """
    output = f"--output {folder.path}"
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        file = folder.lock.open("w")
    except OSError as error:
        raise UserError(f"{output}: cannot be written: {error.strerror}", UNREADABLE) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{output}: another rft run is training there; wait for it or use another folder"
            ) from None
        yield
