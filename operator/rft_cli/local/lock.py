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
    """Create the folder of a run, and lock it until the end of the block. No second command can then write
    into it.

    Raises:
        UserError: if the folder cannot be written, or another command uses it.
    """
    output = f"--output {folder.path}"
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{output}: cannot be written: {error.strerror}", UNREADABLE) from error
    if os.path.lexists(folder.log):
        with _own_file(folder.log):
            pass  # a log that is a link is refused here, before the trainer writes into it
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
    """Yield an open file of the run's folder. A link is refused, because it may lead to any file of
    the user.
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
