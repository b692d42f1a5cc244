"""Reads and writes ``status.yaml``, the status of a local run. It has the form of an RFTJob's status."""

from pathlib import Path
from typing import Any

import yaml

from rft_api.status import RFTJobStatus
from rft_run import atomic, run_files
from rft_run.cluster_text import cluster_object


class UnreadableStatus(ValueError):
    """This release cannot read the file ``status.yaml`` as a status."""


def write_status(path: Path, status: RFTJobStatus) -> None:
    """Write the status file atomically, without the secrets and control characters in the status.

    Raises OSError.
    """
    body = cluster_object(status.dump())
    atomic.write_text(path, yaml.safe_dump(body, sort_keys=False, allow_unicode=True))


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
    value = run_files.yaml_value(run_files.text(path, run_files.STATUS_BYTES))
    if not isinstance(value, dict | None):
        raise ValueError("is not a YAML object")
    return value or {}
