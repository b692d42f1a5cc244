"""Files that are whole or not there: temporary name, fsync, rename."""

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from rft_trainer.errors import VolumeError

_PARTIAL = ".partial"
_TORCH_WRITER = "inline_container"
"""torch.save has no error of its own for a file that does not take it all: this is in the message."""


@contextmanager
def new_folder(target: Path, check: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """Give a temporary folder that is renamed to ``target`` when the block succeeds.

    Every file is synced first: after a power cut the folder is whole or absent. ``check`` is called just
    before the rename and may refuse it by raising: writing and syncing can take minutes. Raises VolumeError,
    also where torch or safetensors in the block could not write a file to its end.
    """
    unfinished = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}{_PARTIAL}")
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        for file in [*unfinished.rglob("*"), unfinished]:
            sync(file)
        check()
        unfinished.rename(target)
        sync(target.parent)
    except (OSError, SafetensorError) as error:
        raise _not_written(target, error) from error
    except RuntimeError as error:
        if _TORCH_WRITER not in str(error):
            raise
        raise _not_written(target, error) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _not_written(target: Path, error: Exception) -> VolumeError:
    try:
        free = shutil.disk_usage(target.parent).free
    except OSError:
        return VolumeError(f"{target}: {error}")
    return VolumeError(f"{target}: {error} ({free / 2**20:,.1f} MiB are free on its volume)")


@contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """Give the path of a temporary file that takes ``target``'s place when the block succeeds.

    Raises VolumeError where the folder cannot be made or the file not be moved.
    """
    unfinished = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}{_PARTIAL}")
    try:
        with _volume_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        with _volume_errors(target):
            sync(unfinished)
            unfinished.replace(target)
    finally:
        with suppress(OSError):
            unfinished.unlink()


@contextmanager
def _volume_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise VolumeError(f"{target}: {error}") from error


def write_pieces(target: Path, pieces: Iterable[bytes]) -> None:
    """Replace a file with what is given piece by piece. Raises VolumeError."""
    with new_file(target) as unfinished, _volume_errors(target), unfinished.open("wb") as file:
        for piece in pieces:
            file.write(piece)


def sync(path: Path) -> None:
    """Flush a file or folder to its disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(target: Path, value: Any) -> None:
    """Replace a JSON file atomically. Raises VolumeError."""
    unfinished = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}{_PARTIAL}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(json.dumps(value, allow_nan=False) + "\n", encoding="utf-8")
        sync(unfinished)
        unfinished.replace(target)
    except OSError as error:
        raise VolumeError(f"{target}: {error}") from error
    finally:
        with suppress(OSError):
            unfinished.unlink()


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed attempt left unfinished in ``folder``."""
    for leftover in folder.glob(f".*{_PARTIAL}"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
