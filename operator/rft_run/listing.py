"""Parses and checks a list of the files in a run's folder, before ``rft download`` downloads these files.

A pod that mounts the run's volume sends the list. Other people may write to this volume. So a path that leads
out of the folder of the download is refused.
"""

import json
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from rft_run import run_files

MOST_FILES = 100_000
"""Maximum number of files in a list. The folder of a run of 10,000 steps has about this number of files."""
_MOST_CHARACTERS = 1024
_SHA256 = re.compile(r"[0-9a-f]{64}")


class UnsafeListing(ValueError):
    """The list of files from a pod is refused: a line does not describe a file, a path is not allowed, or the
    list is too long.
    """


class FileEntry(NamedTuple):
    """A file of a run's folder: its path relative to the folder, its size in bytes, and its SHA-256 digest
    as hexadecimal digits.
    """

    path: str
    size: int
    sha256: str


def read_listing(lines: Iterable[bytes]) -> list[FileEntry]:
    """Parse a list of files. Each line is a JSON object with ``path``, ``size`` and ``sha256`` of one file.
    Empty lines are ignored.

    Raises:
        UnsafeListing: if a line is not such an object; if a path could lead out of the folder or occurs
            twice; or if the list has more than ``MOST_FILES`` files.
    """
    found: dict[str, FileEntry] = {}
    for line in lines:
        if not line.strip():
            continue
        entry = _entry(line)
        if entry.path in found:
            raise UnsafeListing(f"the path {entry.path!r} is in the list twice")
        if len(found) == MOST_FILES:
            raise UnsafeListing(f"the list has more than {MOST_FILES:,} files, the most that are read")
        found[entry.path] = entry
    return list(found.values())


def read_names(lines: Iterable[bytes]) -> list[str]:
    """Parse a list of paths. Each line is the path of one file, as a JSON string. Empty lines are ignored. A
    path may occur twice.

    Raises:
        UnsafeListing: if a line is not a JSON string, if a path could lead out of the folder, or if the list
            has more than ``MOST_FILES`` paths.
    """
    found: list[str] = []
    for line in lines:
        if not line.strip():
            continue
        path = _value(line)
        if not isinstance(path, str):
            raise UnsafeListing(f"a line of the list is no path: {line[:80]!r}")
        if problem := path_problem(path):
            raise UnsafeListing(f"the path {path!r} {problem}")
        if len(found) == MOST_FILES:
            raise UnsafeListing(f"the list has more than {MOST_FILES:,} files, the most that are read")
        found.append(path)
    return found


def _value(line: bytes) -> Any:
    try:
        return run_files.json_value(line)
    except ValueError as error:
        raise UnsafeListing(f"a line of the list is not JSON: {line[:80]!r}") from error


def _entry(line: bytes) -> FileEntry:
    value = _value(line)
    path, size, sha256 = (value.get(key) if isinstance(value, dict) else None for key in FileEntry._fields)
    if not isinstance(path, str) or not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise UnsafeListing(f"a line of the list has no path or no digest: {line[:80]!r}")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= run_files.MOST:
        raise UnsafeListing(f"the size of {path!r} is {json.dumps(size)}, and must be a number of bytes")
    if problem := path_problem(path):
        raise UnsafeListing(f"the path {path!r} {problem}")
    return FileEntry(path, size, sha256)


def path_problem(path: str) -> str | None:
    """Return a message that says why a path in the list is refused, or None if the path is safe to use."""
    parts = path.split("/")
    if "" in parts:
        return "is absolute, or has an empty part; only paths relative to the folder are allowed"
    if any(part.startswith(".") for part in parts):
        return "has a part that begins with a dot; no file of a run's folder has one"
    if "\\" in path or not path.isprintable():
        return "has a backslash or a control character; no file of a run's folder has one"
    if len(path) > _MOST_CHARACTERS:
        return f"is longer than {_MOST_CHARACTERS} characters"
    return None
