"""The one writer of what must survive a crash: files and folders are whole or absent, never half written.

Everything is written under a temporary name, flushed to the disk, renamed, and the rename is flushed too.
Without the flush a rename can reach the disk before the content does: a power cut then leaves an empty file.
"""

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PARTIAL = ".partial"


def temporary(target: Path) -> Path:
    """Return a new hidden name beside ``target``; ``remove_leftovers`` finds it where a crash leaves it."""
    return target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}{_PARTIAL}")


def put(unfinished: Path, target: Path) -> None:
    """Give a file the name of ``target``, which it replaces. Raises OSError."""
    sync(unfinished)
    unfinished.replace(target)
    sync(target.parent)


def write_bytes(target: Path, content: bytes) -> None:
    """Replace a file, or make it and its folder. Raises OSError."""
    unfinished = temporary(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(content)
        put(unfinished, target)
    finally:
        with suppress(OSError):
            unfinished.unlink()


def write_text(target: Path, text: str) -> None:
    """Replace a file with text in UTF-8, or make it and its folder. Raises OSError."""
    write_bytes(target, text.encode())


@contextmanager
def new_folder(
    target: Path, check: Callable[[], None] = lambda: None, *, replace: bool = False
) -> Iterator[Path]:
    """Give a temporary folder that is renamed to ``target`` when the block succeeds.

    ``check`` is called just before the rename and may refuse it by raising: writing and flushing can take
    minutes. With ``replace`` what is there already is removed after the rename. Raises OSError.
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
    """Move a folder to ``target``, and remove what was there only once it has been moved."""
    old = unfinished.with_suffix(".old")
    target.rename(old)
    unfinished.rename(target)
    if old.is_dir():
        shutil.rmtree(old)
    else:
        old.unlink()


def sync(path: Path) -> None:
    """Flush a file or folder to its disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process left unfinished in ``folder``."""
    for leftover in folder.glob(f".*{_PARTIAL}"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
