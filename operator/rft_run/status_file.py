"""Reads and writes ``status.yaml``: the status of a local run, in the form of an RFTJob's status on a
cluster.
"""

from pathlib import Path
from typing import Any

import yaml

from rft_api.status import RFTJobStatus
from rft_run import atomic, run_files


class UnreadableStatus(ValueError):
    """The file ``status.yaml`` does not have a status that this release can read."""


def write_status(path: Path, status: RFTJobStatus) -> None:
    """Replace the status file atomically. Raises OSError."""
    atomic.write_text(path, yaml.safe_dump(status.dump(), sort_keys=False, allow_unicode=True))


def read_status(path: Path) -> RFTJobStatus:
    """Return the status in the file, or an empty status if there is no file.

    Raises UnreadableStatus for an invalid file, and OSError.
    """
    try:
        return RFTJobStatus.model_validate(status_object(path))
    except FileNotFoundError:
        return RFTJobStatus()
    except run_files.UnreadableFile as error:
        raise UnreadableStatus(f"{path}: {error}") from error
    except ValueError as error:
        raise UnreadableStatus(f"{path}: is not a status that this version can read") from error


def status_object(path: Path) -> dict[str, Any]:
    """Return the YAML object in a status file. Raises ValueError for anything else, and OSError."""
    text = run_files.text(path, run_files.STATUS_BYTES)
    try:
        value = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
        if _values(value, {}) > run_files.STATUS_BYTES:  # more than the text has, so an alias repeats them
            raise run_files.UnreadableFile(f"has aliases for more than {run_files.STATUS_BYTES:,} values")
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError("is not YAML") from error
    if not isinstance(value, dict | None):
        raise ValueError("is not a YAML object")
    return value or {}


class _Loader(yaml.SafeLoader):
    """Reads no merge key: nested ones take any amount of memory, and no status has one."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Leave a merge key as it is. Then it is an error, since nothing constructs it."""


def _values(value: object, known: dict[int, int]) -> int:
    """Return the number of values in a value, where each alias counts as what it stands for."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = run_files.MOST  # of an alias to what it is in
        parts = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_values(part, known) for part in parts)
    return known[id(value)]
