"""Computes and compares fingerprints of a run's inputs, to find inputs that changed since the run began.

The trainer saves a fingerprint when a run begins. When the run is resumed, the trainer computes another one
and compares both. A fingerprint covers:

- the lines of the datasets, in their order;
- the settings of the graders;
- the code of python graders;
- the models. For a model from the hub, the fingerprint has the commit. For a model in a folder, it has a
  digest of each file. Of a weights file above 64 KiB, the digest covers the size, the header and 16 blocks.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import Field

from rft_run import run_files
from rft_run.record import Record

LINE_BYTES = 8
"""Length of the digest of one line of a dataset, in bytes."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BLOCKS, _BLOCK_BYTES = 16, 4096
_SMALL_BYTES = 64 << 20
_MODEL_FILES = ("*.json", "*.safetensors", "*.bin", "*.model", "*.txt", "*.jinja")
_WITHOUT_MEANING = ("transformers_version",)
"""Keys in the JSON files of a model that the digest leaves out: transformers writes them, and they do not
change the model."""


class Text(Record):
    """The fingerprint of a dataset: one SHA-256 digest over all its lines, and the number of lines."""

    sha256: str
    lines: int


class Fingerprint(Record):
    """The fingerprint of a run's inputs: digests of the datasets, graders and models.

    An input that could not be read is absent, and is not compared.
    """

    rows: dict[str, Text] = Field(default_factory=dict)
    """The digest of each dataset. The key is the manifest's field for it, such as ``spec.dataset``."""
    graders: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """The settings of each grader, by the name of the grader. Settings with their default value are left out,
    so that the fingerprint does not change when a later release adds a setting."""
    code: dict[str, list[str]] = Field(default_factory=dict)
    """For each python grader, by its name: one digest for each line of its code."""
    models: dict[str, dict[str, str]] = Field(default_factory=dict)
    """The digests of each model. The key is the field of the manifest that names the model. A model from the
    hub has only its ``commit``. Any other model has the digest of each of its files, by the file's name."""


def line_digests(stream: BinaryIO) -> Iterator[bytes]:
    """Yield a digest of ``LINE_BYTES`` bytes for each line of a dataset's file.

    Line endings and a byte order mark are ignored, because they do not change the rows.
    """
    for number, raw in enumerate(run_files.lines(stream, run_files.MOST)):
        line = raw.removesuffix(b"\n").removesuffix(b"\r")
        if number == 0:
            line = line.removeprefix(_BYTE_ORDER_MARK)
        yield hashlib.blake2b(line, digest_size=LINE_BYTES).digest()


def first_difference(before: Iterator[bytes], now: Iterator[bytes]) -> int | None:
    """Compare two versions of a file by the digests of their lines, ``before`` and ``now``.

    Return the number of the first line that differs, counted from 1, or None if all lines are equal. A line
    that only one version has counts as different.
    """
    pairs = zip_longest(before, now)
    return next((number for number, (old, new) in enumerate(pairs, start=1) if old != new), None)


def hub_commit(folder: Path) -> str | None:
    """Return the commit of the model in ``folder``, if this is a snapshot folder in the hub's cache. The name
    of such a folder is the commit. Return None for any other folder.
    """
    return folder.name if folder.parent.name == "snapshots" and len(folder.name) == 40 else None


def model_digests(folder: Path) -> dict[str, str]:
    """Return the fingerprint of the model in ``folder``.

    For a folder in the hub's cache, this is ``{"commit": …}``. For any other folder, it is the digest of each
    file of the model, by the file's name. Raises OSError if a file cannot be read.
    """
    if commit := hub_commit(folder):
        return {"commit": commit}
    files = sorted({file for pattern in _MODEL_FILES for file in folder.glob(pattern) if file.is_file()})
    return {file.name: file_digest(file) for file in files}


def file_digest(file: Path) -> str:
    """Return a text with a digest of a model's file. For files that are not JSON, it also has the size.

    The digest of a JSON file up to 64 MiB does not depend on the file's layout. The digest of a weights file
    above 64 KiB covers only the header and 16 blocks, so that large models are read fast. Raises OSError.
    """
    size = file.stat().st_size
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        if file.suffix == ".json" and size <= _SMALL_BYTES:
            digest.update(_canonical(stream.read()))
            return f"sha256 {digest.hexdigest()[:16]}"
        whole = size <= _BLOCKS * _BLOCK_BYTES or file.suffix not in (".safetensors", ".bin")
        for begin in [0] if whole else _places(stream, size):
            stream.seek(begin)
            digest.update(stream.read() if whole else stream.read(_BLOCK_BYTES))
    return f"{size} bytes, sha256 {digest.hexdigest()[:16]}"


def _places(stream: BinaryIO, size: int) -> list[int]:
    """Return the offsets in bytes of the blocks that the digest of a weights file covers.

    These are all blocks of the safetensors header, and 16 blocks that are spread evenly over the file.
    ``size`` is the size of the file in bytes.
    """
    header = min(int.from_bytes(stream.read(8), "little") + 8, size, _SMALL_BYTES)
    spread = [(size - _BLOCK_BYTES) * index // (_BLOCKS - 1) for index in range(_BLOCKS)]
    return [*range(0, header, _BLOCK_BYTES), *spread]


def _canonical(content: bytes) -> bytes:
    try:
        body = run_files.json_value(content)
    except ValueError:
        return content
    if isinstance(body, dict):
        body = {key: value for key, value in body.items() if key not in _WITHOUT_MEANING}
    return json.dumps(body, sort_keys=True).encode()


def changes(before: Fingerprint, now: Fingerprint, first_line: Mapping[str, int]) -> list[str]:
    """Compare two fingerprints. Return a message for each input that changed.

    An input that only one fingerprint has is not compared. ``first_line`` has the number of the first line
    that differs, for each dataset for which it is known. The key is the field of the manifest that names the
    dataset.
    """
    found = []
    for field, old in before.rows.items():
        new = now.rows.get(field)
        if new is not None and new.sha256 != old.sha256:
            found.append(_rows_changed(field, old, new, first_line.get(field)))
    for name, settings in before.graders.items():
        if name in now.graders and now.graders[name] != settings:
            found.append(f"the settings of grader {name}: {_changed_keys(settings, now.graders[name])}")
    for name, lines in before.code.items():
        if name in now.code and (line := first_difference(_encoded(lines), _encoded(now.code[name]))):
            found.append(
                f"the text of grader {name}'s code: the first difference is in line {line};"
                f" it had {len(lines)} lines, and now has {len(now.code[name])}"
            )
    for field, files in before.models.items():
        if field in now.models and now.models[field] != files:
            found.append(f"the model of {field}: {_changed_keys(files, now.models[field])}")
    return found


def _rows_changed(field: str, old: Text, new: Text, line: int | None) -> str:
    where = f": the first difference is in line {line}" if line is not None else ""
    return (
        f"the rows of {field}{where}; the file had {old.lines} lines (sha256 {old.sha256[:12]}), and now has"
        f" {new.lines} (sha256 {new.sha256[:12]})"
    )


def _changed_keys(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    keys = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    said = [f"{key} was {_shown(before.get(key))}, is now {_shown(now.get(key))}" for key in keys[:5]]
    return ", ".join([*said, *([f"and {len(keys) - 5} more"] if len(keys) > 5 else [])])


def _shown(value: object) -> str:
    if value is None:
        return "absent"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _encoded(digests: Sequence[str]) -> Iterator[bytes]:
    return (digest.encode() for digest in digests)


def merged(before: Fingerprint, now: Fingerprint) -> Fingerprint:
    """Return the fingerprint ``before``, completed by the inputs that only the fingerprint ``now`` has."""
    parts = ("rows", "graders", "code", "models")
    return before.model_copy(update={part: getattr(now, part) | getattr(before, part) for part in parts})


def read_line_digests(file: Path) -> Iterator[bytes]:
    """Yield the digests of a dataset's lines from ``file``, which ``RunFolder.line_digests_of`` names. Each
    digest has ``LINE_BYTES`` bytes.

    Raises UnreadableFile if the file is not a regular file, and OSError.
    """
    with run_files.opened(file) as stream:
        while digest := stream.read(LINE_BYTES):
            yield digest
