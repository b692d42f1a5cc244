"""Writes files and folders atomically with ``rft_run.atomic``. An OSError becomes a VolumeError."""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from rft_run import atomic
from rft_run.errors import VolumeError


@contextmanager
def new_folder(target: Path, check: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """Yield a temporary folder. If the ``with`` block succeeds, rename the folder to ``target``.

    ``check`` is called before the rename. If ``check`` raises an error, the folder is not renamed. Raises
    VolumeError if the folder cannot be created or renamed. An OSError or a SafetensorError of the ``with``
    block also becomes a VolumeError.
    """
    try:
        with atomic.new_folder(target, check) as unfinished:
            yield unfinished
    except (OSError, SafetensorError) as error:
        raise _not_written(target, error) from error


def _not_written(target: Path, error: Exception) -> VolumeError:
    try:
        free = shutil.disk_usage(target.parent).free
    except OSError:
        return VolumeError(f"{target}: {error}")
    return VolumeError(f"{target}: {error} ({free / 2**20:,.1f} MiB are free on its volume)")


@contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """Yield the path of a temporary file. If the ``with`` block succeeds, rename the file to ``target``.

    The block has to write the file. Raises VolumeError if the folder cannot be created or the file cannot be
    renamed. An OSError of the block stays an OSError, because the block may also read from other places.
    """
    unfinished = atomic.temporary(target)
    try:
        with volume_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        with volume_errors(target):
            atomic.put(unfinished, target)
    finally:
        with suppress(OSError):
            unfinished.unlink()


@contextmanager
def volume_errors(target: Path) -> Iterator[None]:
    """In the ``with`` block, convert an OSError into a VolumeError that names ``target``."""
    try:
        yield
    except OSError as error:
        raise VolumeError(f"{target}: {error}") from error


def write_pieces(target: Path, pieces: Iterable[bytes]) -> None:
    """Replace the content of a file atomically by the concatenated pieces. Raises VolumeError."""
    with new_file(target) as unfinished, volume_errors(target), unfinished.open("wb") as file:
        for piece in pieces:
            file.write(piece)


def write_bytes(target: Path, content: bytes) -> None:
    """Replace the content of a file atomically. Raises VolumeError."""
    with volume_errors(target):
        atomic.write_bytes(target, content)


def write_json(target: Path, value: Any) -> None:
    """Replace the content of a JSON file atomically. Raises VolumeError; ValueError for NaN or infinity."""
    write_bytes(target, (json.dumps(value, allow_nan=False) + "\n").encode())
