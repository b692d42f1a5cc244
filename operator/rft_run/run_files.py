"""Opens and reads the files of a run's folder, within limits on their sizes.

Other people may write to the volume of a run. So only regular files are opened. A FIFO would block for ever,
and a symbolic link may point to a file outside of the folder. The number of bytes that are read of a file is
limited, and for a packed file also the number of unpacked bytes. Nothing that is read is executed.

The message of an UnreadableFile has no path. The caller writes the path of the file in front of the message.
"""

import errno
import io
import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

import yaml

MIB = 1 << 20
STATE_BYTES = 16 * MIB
"""Maximum size in bytes of a file with one JSON object, such as ``state.json`` or ``run.json``."""
EVALUATION_BYTES = 256 * MIB
"""Maximum size in bytes of a file with a held-out evaluation, which has the completions of at most 256
rows."""
STATUS_BYTES = 2 * MIB
"""Maximum size of ``status.yaml`` in bytes. The API server also refuses a larger status."""
METRICS_BYTES = 256 * MIB
METRICS_LINES = 500_000
"""Maximum number of steps in ``metrics.jsonl``. With one step per second they take nearly six days."""
ROLLOUTS_BYTES = 1024 * MIB
"""Maximum size in bytes of the rollouts of one step, after unpacking."""
ROLLOUTS_WINDOW_BYTES = 32 * MIB
"""Maximum memory in bytes that the unpacking of a zstd file may need. Files of the trainer need 2 MiB."""
LINE_BYTES = 64 * MIB
"""Maximum size in bytes of one line: of a dataset's row, of a rollout, or of a step's metrics."""
JSON_VALUES = 4_000_000
"""Maximum number of values in one JSON text. Each value may take 64 bytes of memory, even if its text has
only three bytes."""
UNPACKED_BYTES = 1024 * MIB
"""A packed dataset is always read if it has at most this number of bytes after unpacking. Above this number,
``UNPACKED_RATIO`` limits it."""
UNPACKED_RATIO = 200
"""Maximum size of an unpacked dataset, as a multiple of its packed size. It applies only above
``UNPACKED_BYTES``. Gzip reaches a ratio of 20 with text, and of 1000 with zeros."""
MOST = 2**63 - 1
"""The largest whole number that a record of a run may have."""

_LINK = "a symbolic link"
_KINDS = (
    (stat.S_ISLNK, _LINK), (stat.S_ISFIFO, "a FIFO"), (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"),
)  # fmt: skip
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
"""Matches a string in JSON. Its closing quote may be missing, for speed: in a string that is never closed,
the search would otherwise start again at each quote within the string."""


class UnreadableFile(ValueError):
    """A file is not a regular file, is larger than its limit, or contains too many values.

    The message does not contain the file's path.
    """


@contextmanager
def opened(path: Path, *, follow: bool = False) -> Iterator[io.BufferedReader]:
    """Yield a regular file, open for reading.

    With ``follow`` a symbolic link is followed. This is allowed only if the user has named the path. Raises
    UnreadableFile for anything else than a regular file, and OSError.
    """
    with os.fdopen(_descriptor(path, os.O_RDONLY | (0 if follow else os.O_NOFOLLOW)), "rb") as file:
        yield file


@contextmanager
def writable(path: Path) -> Iterator[BinaryIO]:
    """Yield a regular file, open for appending. It is created if it is missing.

    Raises UnreadableFile for anything else than a regular file, and OSError.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
    with os.fdopen(_descriptor(path, flags), "ab") as file:
        yield file


def _descriptor(path: Path, flags: int) -> int:
    try:
        # Without O_NONBLOCK the opening of a FIFO waits for its other end.
        descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except FileNotFoundError:
        raise
    except OSError as error:
        if (kind := _kind(path)) is not None:
            raise _not_regular(kind) from error
        raise
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    raise _not_regular(_named(mode))


def _kind(path: Path) -> str | None:
    """Return the kind of a special file, such as "a FIFO". Return None if the file is not special."""
    try:
        return _named(path.lstat().st_mode)
    except OSError:
        return None


def _named(mode: int) -> str | None:
    return next((name for is_kind, name in _KINDS if is_kind(mode)), None)


def _not_regular(kind: str | None) -> UnreadableFile:
    if kind is None:
        return UnreadableFile("is not a regular file, and only regular files are read")
    remedy = "put the file itself in its place" if kind == _LINK else "remove it"
    return UnreadableFile(f"is {kind}, and only a regular file is read here; {remedy}")


def is_own(path: Path) -> bool:
    """Return whether a path is a regular file, and not a symbolic link."""
    return path.is_file() and not path.is_symlink()


def refuse_link(folder: Path) -> None:
    """Raise UnreadableFile if a folder is a symbolic link, because the link may lead out of the run's
    folder.
    """
    if folder.is_symlink():
        raise UnreadableFile("is a symbolic link; put the folder itself in its place")


def content(path: Path, most: int = STATE_BYTES, *, follow: bool = False) -> bytes:
    """Return the content of a file. With ``follow`` a symbolic link is followed.

    Raises UnreadableFile if the file has more than ``most`` bytes or is not a regular file, and OSError.
    """
    with opened(path, follow=follow) as file:
        found = file.read(most + 1)
    if len(found) > most:
        raise UnreadableFile(f"is larger than {shown(most)}, the most that is read of such a file")
    return found


def text(path: Path, most: int = STATE_BYTES, *, follow: bool = False) -> str:
    """Return the text of a UTF-8 file. With ``follow`` a symbolic link is followed.

    Raises UnreadableFile if the file has more than ``most`` bytes or is not a regular file. Raises
    UnicodeDecodeError and OSError too.
    """
    return content(path, most, follow=follow).decode()


def end(path: Path, most: int = MIB, begin: int = 0) -> bytes:
    """Return at most ``most`` bytes from the end of a log. Bytes before the offset ``begin`` are not
    returned.

    Raises UnreadableFile and OSError.
    """
    with opened(path) as file:
        file.seek(max(begin, os.fstat(file.fileno()).st_size - most))
        return file.read(most)


def json_of(path: Path, most: int = STATE_BYTES) -> Any:
    """Return the JSON value in a file.

    Raises UnreadableFile if the file has more than ``most`` bytes or is not a regular file. Raises ValueError
    if the file is not valid JSON, and OSError.
    """
    return json_value(content(path, most))


def json_value(raw: bytes) -> Any:
    """Parse JSON. Raises ValueError if it is invalid, or has too many or too deeply nested values."""
    refuse_too_many_values(raw)
    try:
        return json.loads(raw)
    except RecursionError as error:
        raise ValueError("is JSON that is nested too deeply") from error


def refuse_too_many_values(raw: bytes) -> None:
    """Raise UnreadableFile for a JSON text of more than ``JSON_VALUES`` values.

    Such values could take far more memory than the text.
    """
    if _separators(raw) > JSON_VALUES and _separators(_STRING.sub(b"", raw)) > JSON_VALUES:
        raise UnreadableFile(f"has more than {JSON_VALUES:,} JSON values, the most that are read at once")


def _separators(raw: bytes) -> int:
    return sum(raw.count(sign) for sign in (b",", b"[", b"{"))


def yaml_value(text: str) -> Any:
    """Parse YAML.

    Raises ValueError if the YAML is invalid or has a merge key. Raises ValueError too if aliases repeat too
    many values.
    """
    try:
        value = yaml.load(text, Loader=_MergelessLoader)  # noqa: S506 - a SafeLoader
        if _values(value, {}) > STATUS_BYTES:
            raise UnreadableFile(f"has more than {STATUS_BYTES:,} values, because its aliases repeat values")
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError("is not YAML") from error
    return value


class _MergelessLoader(yaml.SafeLoader):
    """A YAML SafeLoader that refuses merge keys, because nested merge keys can take any amount of memory."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Do not expand a merge key. Then the loader fails, because it cannot construct a value from the
        key.
        """


def _values(value: object, known: dict[int, int]) -> int:
    """Return the number of values in a YAML value. An alias counts as if its values were written out."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = MOST  # an alias inside ``value`` to ``value`` itself counts as too large
        parts = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_values(part, known) for part in parts)
    return known[id(value)]


def lines(stream: IO[bytes], most: int, each: int = LINE_BYTES) -> Iterator[bytes]:
    """Yield the lines of a stream, each with its newline. Only a newline ends a line.

    Raises UnreadableFile if a line has more than ``each`` bytes, or if all lines together have more than
    ``most``.
    """
    number = read = 0
    while line := stream.readline(each + 1):
        number, read = number + 1, read + len(line)
        if len(line) > each:
            raise UnreadableFile(f"line {number}: {too_long(each)}")
        if read > most:
            raise UnreadableFile(f"has more than {shown(most)}, the most that is read of such a file")
        yield line


def too_long(each: int = LINE_BYTES) -> str:
    """Return the message for a line of more than ``each`` bytes."""
    return f"is longer than {shown(each)}, the most that is read of a line"


def shown(count: int) -> str:
    """Return a number of bytes as a text such as ``64 MiB``."""
    return f"{count // MIB:,} MiB" if count >= MIB else f"{count:,} bytes"
