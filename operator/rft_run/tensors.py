"""Checks whether a file with tensors (safetensors or torch.save) is complete. It does not need torch."""

import os
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

from rft_run import run_files

HEADER_BEGINS = 8
"""Offset in bytes at which the header of a safetensors file begins. The first 8 bytes of the file have the
length of the header."""
_MAX_HEADER_BYTES = 100_000_000
"""Maximum number of bytes in the header of a safetensors file. The safetensors library has this limit."""

_MAX_DIRECTORY_BYTES = 16 << 20
"""Maximum size in bytes of the central directory of a zip archive, which lists the archive's entries. One
entry takes less than 200 bytes there."""


class IncompleteTensors(ValueError):
    """A file with tensors is truncated, or has another format. The message does not contain the file's
    path.
    """


def safetensors_header(file: Path) -> bytes:
    """Return the header of a safetensors file, after a check that the file is complete.

    The header is JSON with the name, dtype, shape and offsets of each tensor. Raises IncompleteTensors if it
    is invalid, or if the file does not have the size that follows from the header. Raises UnreadableFile if
    the file is not a regular file, and OSError.
    """
    with run_files.opened(file) as stream:
        size = os.fstat(stream.fileno()).st_size
        length = int.from_bytes(stream.read(HEADER_BEGINS), "little")
        if size < HEADER_BEGINS or length > min(_MAX_HEADER_BYTES, size - HEADER_BEGINS):
            raise IncompleteTensors(f"the file is not a complete safetensors file ({size} bytes)")
        header = stream.read(length)
    expected = HEADER_BEGINS + length + _data_bytes(header)
    if size != expected:
        raise IncompleteTensors(f"the file has {size} bytes, but its header describes {expected} bytes")
    return header


def _data_bytes(header: bytes) -> int:
    """Return the total size in bytes of the tensors that a safetensors header describes.

    Raises IncompleteTensors if ``header`` is not a safetensors header.
    """
    try:
        entries = run_files.json_value(header)
        ends = [int(entry["data_offsets"][1]) for name, entry in entries.items() if name != "__metadata__"]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        raise IncompleteTensors("the file's header is not a safetensors header") from error
    return max(ends, default=0)


class _Bounded:
    """A wrapper of a stream, for ``zipfile``. It refuses to read more than ``_MAX_DIRECTORY_BYTES`` bytes at
    once.

    The last bytes of a zip archive have the size of its central directory. ``zipfile`` reads that many bytes
    at once, so a wrong size could take all memory.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        """Read up to ``size`` bytes. Raises BadZipFile if ``size`` is above ``_MAX_DIRECTORY_BYTES``."""
        if size > _MAX_DIRECTORY_BYTES:
            raise zipfile.BadZipFile("its directory is too large")
        return self._stream.read(_MAX_DIRECTORY_BYTES if size < 0 else size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def check_torch_file(file: Path) -> None:
    """Check that a file of ``torch.save`` is complete: a zip archive with its central directory at the end.
    Raise IncompleteTensors if it is not.

    Compressed entries are refused, and so are entries that are together larger than the file. So reading the
    entries takes no more memory than the size of the file.

    Raises UnreadableFile if the file is not a regular file, and OSError.
    """
    with run_files.opened(file) as stream:
        size = os.fstat(stream.fileno()).st_size
        try:
            with zipfile.ZipFile(_Bounded(stream)) as archive:
                entries = archive.infolist()
        except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
            raise IncompleteTensors(f"the file is not a complete torch.save file ({size} bytes)") from error
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > size or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise IncompleteTensors(f"the file is not from torch.save: its {size} bytes unpack to {unpacked}")
