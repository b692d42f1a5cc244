"""Random access to the lines of a file that is too large for memory.

The offsets of the lines are in an index file in the run's folder, with eight bytes for each line. Neither
rows nor offsets are kept in memory.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rft_run import run_files
from rft_run.errors import DataError
from rft_run.rows import BYTE_ORDER_MARK
from rft_trainer import files
from rft_trainer.data.source import readable

_CHUNK_BYTES = 8 << 20
_PLACE = np.dtype("<u8")


class Lines:
    """An open file, from which any line can be read by its number. The first line has the number 1.

    Only a newline ends a line, because JSON may contain the line separator U+2028.
    """

    def __init__(self, file: Path, index: Path) -> None:
        """Open ``file`` and its index of line offsets, which ``index_lines`` has written.

        Raises DataError or TrainerError if ``file`` cannot be read, VolumeError if ``index`` cannot be read.
        """
        self.file = file
        with readable(file):
            self._data = os.open(file, os.O_RDONLY)
        with files.volume_errors(index):
            self._index = os.open(index, os.O_RDONLY)
        self._count = os.fstat(self._index).st_size // _PLACE.itemsize - 1
        self._identity = identity_of(file)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, line: int) -> bytes:
        """Return the bytes of line number ``line``, from 1.

        Raises DataError if the line is too long, or if the file became shorter.
        """
        two = os.pread(self._index, 2 * _PLACE.itemsize, (line - 1) * _PLACE.itemsize)
        begin, end = (int(place) for place in np.frombuffer(two, _PLACE))
        if end - begin > run_files.LINE_BYTES:
            raise DataError(f"line {line}: {self.file}: {run_files.too_long()}")
        raw = os.pread(self._data, end - begin, begin)
        if len(raw) != end - begin:
            raise DataError(f"line {line}: {self.file} became shorter during the run")
        return raw.removeprefix(BYTE_ORDER_MARK) if line == 1 else raw

    def changed(self) -> bool:
        """Return whether the file was modified after it was opened."""
        return identity_of(self.file) != self._identity

    def close(self) -> None:
        """Close the file and its index."""
        os.close(self._data)
        os.close(self._index)


def index_lines(file: Path, index: Path) -> bool:
    """Write the byte offsets of the lines of ``file`` into the file ``index``, unless it has them already.

    Return True if ``index`` had the offsets of another version of ``file``, else False. Raises DataError or
    TrainerError if ``file`` cannot be read, VolumeError if ``index`` cannot be written.
    """
    about = index.with_suffix(".json")
    with readable(file):
        identity = identity_of(file)
        known = recorded(about) if run_files.is_own(index) else None
        if known == identity:
            return False
        files.write_pieces(index, _places(file))
    files.write_json(about, identity)
    return known is not None


def _places(file: Path) -> Iterator[bytes]:
    """Yield the byte offset at which each line of a file starts, and at last the file's size in bytes.

    Each piece has any number of offsets, each as an unsigned little-endian integer of eight bytes.
    """
    begin = np.zeros(1, _PLACE)
    position = 0
    with file.open("rb", buffering=0) as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            yield begin.tobytes()
            begin = (np.flatnonzero(np.frombuffer(chunk, np.uint8) == 0x0A) + (position + 1)).astype(_PLACE)
            position += len(chunk)
    yield begin.tobytes()
    if not len(begin) or int(begin[-1]) != position:
        yield np.array([position], _PLACE).tobytes()


def identity_of(file: Path) -> dict[str, Any]:
    """Return the path, size and modification time of a file, to detect later that the file has changed.

    Raises OSError.
    """
    found = file.stat()
    return {"file": str(file), "bytes": found.st_size, "modifiedNanoseconds": found.st_mtime_ns}


def recorded(about: Path) -> dict[str, Any] | None:
    """Return the JSON object in the file ``about``, which describes another file.

    Return None if ``about`` cannot be read or does not contain a JSON object.
    """
    try:
        found = run_files.json_of(about)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
