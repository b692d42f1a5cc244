"""Writes files and folders atomically: after a crash they are complete or absent, never half written.

The content is written under a temporary name, flushed to the disk and renamed. Then the rename is flushed.
Without the first flush, the rename could reach the disk before the content, and a power failure would leave
an empty file.
"""

import glob
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PARTIAL = ".partial"
_REPLACED = ".old"


def temporary(target: Path) -> Path:
    """Return a new hidden path in the folder of ``target``, for a temporary file or folder.

    If a killed process leaves the file or folder, ``remove_leftovers`` removes it.
    """
    return target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}{_PARTIAL}")


def put(unfinished: Path, target: Path) -> None:
    """Flush a file to the disk, and rename it to ``target``. An existing ``target`` is replaced. Raises
    OSError.
    """
    sync(unfinished)
    unfinished.replace(target)
    sync(target.parent)


def move(source: Path, target: Path) -> None:
    """Rename a file or folder within its parent folder, and flush the rename to the disk. Raises OSError."""
    source.rename(target)
    sync(target.parent)


def write_bytes(target: Path, content: bytes) -> None:
    """Write a file atomically. Create its folder if it is missing. Raises OSError."""
    unfinished = temporary(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(content)
        put(unfinished, target)
    finally:
        with suppress(OSError):
            unfinished.unlink()


def write_text(target: Path, text: str) -> None:
    """Write a text file in UTF-8 atomically. Create its folder if it is missing. Raises OSError."""
    write_bytes(target, text.encode())


@contextmanager
def new_folder(
    target: Path, check: Callable[[], None] = lambda: None, *, replace: bool = False
) -> Iterator[Path]:
    """Yield a temporary folder. If the ``with`` block raises no exception, rename the folder to ``target``.

    ``check`` is called just before the rename, because writing and flushing can take minutes. If ``check``
    raises an error, the folder is not renamed. With ``replace`` an existing ``target`` is replaced.

    Raises OSError. Without ``replace`` this is also the error if ``target`` is a file, or a folder that is
    not empty.
    """
    unfinished = temporary(target)
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        for path in [*unfinished.rglob("*"), unfinished]:
            sync(path)
        check()
        if replace and target.exists():
            _exchange(unfinished, target)
        else:
            unfinished.rename(target)
        sync(target.parent)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _exchange(unfinished: Path, target: Path) -> None:
    """Rename a folder to ``target``. Afterwards, remove the folder that had the name ``target`` before."""
    old = unfinished.with_suffix(_REPLACED)
    target.rename(old)
    try:
        unfinished.rename(target)
    except OSError:
        old.rename(target)
        raise
    # Also removes the folders that a process left when it was killed here.
    for replaced in target.parent.glob(f".{glob.escape(target.name)}.????????{_REPLACED}"):
        if replaced.is_dir() and not replaced.is_symlink():
            shutil.rmtree(replaced)
        else:
            replaced.unlink()


def sync(path: Path) -> None:
    """Flush a file or folder to its disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files and folders that a killed process left in ``folder``."""
    for leftover in folder.glob(f".*{_PARTIAL}"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
