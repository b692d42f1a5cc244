"""Locks a run's folder, so that two commands cannot write into it at the same time."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from rft_cli.errors import UNREADABLE, UserError
from rft_run import run_files
from rft_run.folder import RunFolder


@contextlib.contextmanager
def locked(folder: RunFolder) -> Iterator[None]:
    """Create the folder of a run if it is missing, and lock it until the end of the ``with`` block.

    Another ``rft run`` or ``rft download`` cannot use the folder in this time.

    Raises:
        UserError: if the folder cannot be written, or another command has locked it.
    """
    output = f"--output {folder.path}"
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{output}: cannot be written: {error.strerror}", UNREADABLE) from error
    if os.path.lexists(folder.log):
        with _own_file(folder.log):
            pass  # raises UserError if the log is a link, before the trainer writes into it
    with _own_file(folder.lock) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{output}: another rft run or rft download uses it; wait for it or use another folder"
            ) from None
        yield


@contextlib.contextmanager
def _own_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file in the run's folder for appending, and close it at the end of the ``with`` block.

    Raises UserError if the file cannot be written, or is a link, which could lead to any file of the user.
    """
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(run_files.writable(path))
        except run_files.UnreadableFile as error:
            raise UserError(f"{path}: {error}", UNREADABLE) from error
        except OSError as error:
            raise UserError(
                f"--output {path.parent}: cannot be written: {error.strerror}", UNREADABLE
            ) from error
        yield file
