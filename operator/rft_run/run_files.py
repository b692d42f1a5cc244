"""Opens and reads the files in a run's folder safely, and limits how many bytes are read of each.

Other people may write to the volume of a run. So only regular files are opened: a FIFO would block for ever,
and a symbolic link may point to a file outside of the folder. The number of bytes that are read of a file is
limited, and for a compressed file also the number of bytes after unpacking. No content is ever executed.

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
"""Maximum size in bytes of a small file with one JSON object, such as ``state.json`` or ``run.json``."""
EVALUATION_BYTES = 256 * MIB
"""Maximum size in bytes of the file of a held-out evaluation. Such a file has the completions of at most 256
rows."""
STATUS_BYTES = 2 * MIB
"""Maximum size of ``status.yaml`` in bytes. The Kubernetes API server refuses a larger status too."""
METRICS_BYTES = 256 * MIB
METRICS_LINES = 500_000
"""Maximum number of steps in ``metrics.jsonl``. At one step per second, a run needs nearly six days for
them."""
ROLLOUTS_BYTES = 1024 * MIB
"""Maximum size in bytes of the rollouts of one step, after unpacking."""
ROLLOUTS_WINDOW_BYTES = 32 * MIB
"""Maximum window of a zstd file in bytes, which is the memory that its decompression needs. The trainer
writes files with a window of 2 MiB."""
LINE_BYTES = 64 * MIB
"""Maximum size in bytes of one line in a file of JSON lines: a dataset, rollouts, or metrics of steps."""
JSON_VALUES = 4_000_000
"""Maximum number of values in one JSON text. A value may take 64 bytes of memory, although its text has only
three bytes."""
UNPACKED_BYTES = 1024 * MIB
"""A compressed dataset of at most this number of bytes after unpacking is always read. A larger one is read
only if its compression ratio is within ``UNPACKED_RATIO``."""
UNPACKED_RATIO = 200
"""Maximum compression ratio of a dataset: its size after unpacking, divided by its compressed size.

It applies only above ``UNPACKED_BYTES``. Gzip reaches a ratio of 20 with text, and of 1000 with zeros."""
MOST = 2**63 - 1
"""The largest whole number that is allowed in the files of a run: the largest signed integer of 64 bits."""

_LINK = "a symbolic link"
_KINDS = (
    (stat.S_ISLNK, _LINK), (stat.S_ISFIFO, "a FIFO"), (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"),
)  # fmt: skip
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
"""Matches a string in JSON, also one without its closing quote.

Otherwise a text with an unclosed string would be slow to search: the search would start again at each quote
within the string."""


class UnreadableFile(ValueError):
    """A file is refused: it is not a regular file, is larger than its limit, or has too many values.

    The message does not contain the file's path.
    """


@contextmanager
def opened(path: Path, *, follow: bool = False) -> Iterator[io.BufferedReader]:
    """Open a regular file for reading, and close it at the end of the ``with`` block.

    ``follow``: whether to follow a symbolic link. Otherwise a link is refused. Set it only for paths that the
    user chose. Raises UnreadableFile if ``path`` is a link or another special file, and OSError.
    """
    with os.fdopen(_descriptor(path, os.O_RDONLY | (0 if follow else os.O_NOFOLLOW)), "rb") as file:
        yield file


@contextmanager
def writable(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file for appending, and close it at the end of the ``with`` block. A missing file is
    created.

    Raises UnreadableFile if ``path`` is a link or another special file, and OSError.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
    with os.fdopen(_descriptor(path, flags), "ab") as file:
        yield file


def _descriptor(path: Path, flags: int) -> int:
    try:
        # Without O_NONBLOCK, opening a FIFO waits until another process opens it too.
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
    """Return the kind of a special file as text, such as "a FIFO" or "a symbolic link".

    Return None for a regular file or a folder, and if ``path`` does not exist.
    """
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
    """Return whether ``path`` is a regular file. A symbolic link to a file does not count."""
    return path.is_file() and not path.is_symlink()


def refuse_link(folder: Path) -> None:
    """Raise UnreadableFile if ``folder`` is a symbolic link. The link could lead out of the run's folder."""
    if folder.is_symlink():
        raise UnreadableFile("is a symbolic link; put the folder itself in its place")


def content(path: Path, most: int = STATE_BYTES, *, follow: bool = False) -> bytes:
    """Return the content of a file. ``follow``: whether to follow a symbolic link instead of refusing it.

    Raises UnreadableFile if the file has more than ``most`` bytes or is not a regular file, and OSError.
    """
    with opened(path, follow=follow) as file:
        found = file.read(most + 1)
    if len(found) > most:
        raise UnreadableFile(f"is larger than {shown(most)}, the most that is read of such a file")
    return found


def text(path: Path, most: int = STATE_BYTES, *, follow: bool = False) -> str:
    """Return the text in a UTF-8 file. ``follow``: whether to follow a symbolic link instead of refusing it.

    Raises UnreadableFile if the file has more than ``most`` bytes or is not a regular file. Also raises
    UnicodeDecodeError and OSError.
    """
    return content(path, most, follow=follow).decode()


def end(path: Path, most: int = MIB, begin: int = 0) -> bytes:
    """Return the last bytes of a file, such as a log: at most ``most`` bytes, and none before the offset
    ``begin``.

    Raises UnreadableFile if the file is not a regular file, and OSError.
    """
    with opened(path) as file:
        file.seek(max(begin, os.fstat(file.fileno()).st_size - most))
        return file.read(most)


def json_of(path: Path, most: int = STATE_BYTES) -> Any:
    """Return the parsed JSON of a file.

    Raises UnreadableFile if the file has more than ``most`` bytes or is not a regular file. Raises ValueError
    if the content is not valid JSON, and OSError.
    """
    return json_value(content(path, most))


def json_value(raw: bytes) -> Any:
    """Parse the JSON text ``raw``. Raises ValueError if it is invalid, or has too many or too deeply nested
    values.
    """
    refuse_too_many_values(raw)
    try:
        return json.loads(raw)
    except RecursionError as error:
        raise ValueError("is JSON that is nested too deeply") from error


def refuse_too_many_values(raw: bytes) -> None:
    """Raise UnreadableFile if the JSON text ``raw`` has more than ``JSON_VALUES`` values.

    Many small values could take far more memory than the text. So this is called before the text is parsed.
    """
    if _separators(raw) > JSON_VALUES and _separators(_STRING.sub(b"", raw)) > JSON_VALUES:
        raise UnreadableFile(f"has more than {JSON_VALUES:,} JSON values, the most that are read at once")


def _separators(raw: bytes) -> int:
    return sum(raw.count(sign) for sign in (b",", b"[", b"{"))


def yaml_value(text: str) -> Any:
    """Parse the YAML text ``text``.

    Raises ValueError if the text is invalid, has a merge key, or has too many values because its aliases
    repeat values.
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
        """Do nothing, so that merge keys are not expanded. The loader then fails at a merge key."""


def _values(value: object, known: dict[int, int]) -> int:
    """Return the number of values in a parsed YAML value. The values behind an alias count at each use.

    ``known`` has the results for lists and objects that were counted before. The key is their ``id()``.
    """
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = MOST  # if ``value`` contains an alias to itself, the result is too large
        parts = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_values(part, known) for part in parts)
    return known[id(value)]


def lines(stream: IO[bytes], most: int, each: int = LINE_BYTES) -> Iterator[bytes]:
    """Yield the lines of a stream, each with its newline. Only a newline ends a line, no other character.

    Raises UnreadableFile if a line has more than ``each`` bytes, or if all lines together have more than
    ``most`` bytes.
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
    """Return the error message for a line that has more than ``each`` bytes."""
    return f"is longer than {shown(each)}, the most that is read of a line"


def shown(count: int) -> str:
    """Format a number of bytes for a message, such as ``64 MiB`` or ``512 bytes``."""
    return f"{count // MIB:,} MiB" if count >= MIB else f"{count:,} bytes"
