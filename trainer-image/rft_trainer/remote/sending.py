"""The code that is used for copies to the hub and for copies to S3: open files, result, error."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

from rft_api.controls import without_controls
from rft_run import run_files
from rft_run.redact import redacted
from rft_trainer.data.source import shown

LAST = "adapter_config.json"
"""The file that PEFT reads first. It is sent last: a copy that lacks this file is not complete."""


_NOT_IMPLEMENTED = 501
_TEMPORARY = (408, 425, 429)
"""HTTP statuses below 500 of requests that may succeed later: timeout, too early, too many requests."""


class PushError(Exception):
    """Files could not be copied to the hub or to S3. The message names the place and has no secrets.

    ``temporary``: whether the same copy may succeed if it is repeated later.
    """

    def __init__(self, message: str, *, temporary: bool = False) -> None:
        """``temporary``: whether the same copy may succeed if it is repeated later."""
        super().__init__(message)
        self.temporary = temporary


class Pushed(NamedTuple):
    """The result of copying a folder to the hub or to S3: the address of the copy, and names of files."""

    address: str
    sent: list[str]
    """The files that were sent."""
    kept: list[str]
    """The files that the destination had already, with the same content."""
    others: list[str]
    """Files at the destination that the pushed folder does not have. They stay as they are."""


@contextmanager
def opened(folder: Path) -> Iterator[dict[str, BufferedReader]]:
    """Yield the files of a folder, open for reading, by their names. Subfolders are left out.

    ``adapter_config.json`` is the last entry. Raises PushError if an entry is a link, a FIFO or a device,
    because other pods may have put it on the run's volume. Also raises PushError if the folder has no files,
    or cannot be read.
    """
    with ExitStack() as stack:
        found = {}
        try:
            for path in sorted(folder.iterdir(), key=lambda path: (path.name == LAST, path.name)):
                if path.is_symlink() or not path.is_dir():
                    found[path.name] = stack.enter_context(run_files.opened(path))
        except run_files.UnreadableFile as error:
            raise PushError(f"{path}: {error}") from error
        except OSError as error:
            raise PushError(f"{folder}: cannot be read: {error.strerror}", temporary=True) from error
        if not found:
            raise PushError(f"{folder}: has no files; give the folder of an adapter or of a model")
        yield found


def sha256(file: BufferedReader) -> str:
    """Return the SHA-256 digest of a whole file as hexadecimal digits.

    Afterwards the file is at its beginning again.
    """
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    file.seek(0)
    return digest


def is_temporary(status: int) -> bool:
    """Return whether a request that got the HTTP status ``status`` may succeed if it is repeated later."""
    return (status >= 500 and status != _NOT_IMPLEMENTED) or status in _TEMPORARY


def said(error: BaseException) -> str:
    """Return the first line of an error's message and of its cause's message, joined by ": ".

    Secrets, URL queries and control characters are removed.
    """
    found = (error,) if error.__cause__ is None else (error, error.__cause__)
    lines = [next(iter(str(each).strip().splitlines()), "") or type(each).__name__ for each in found]
    return redacted(shown(without_controls(": ".join(lines))))


def set_variables(environment: Mapping[str, str], *names: str) -> list[str]:
    """Return those of ``names`` that are in ``environment`` with a value that is not empty."""
    return [name for name in names if environment.get(name)]
