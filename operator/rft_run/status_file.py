"""Reads and writes ``status.yaml`` in a run's folder: the status of a run on the user's machine.

The file has the form of the ``status`` of an RFTJob.
"""

from pathlib import Path
from typing import Any

import yaml

from rft_api.status import RFTJobStatus
from rft_run import atomic, run_files
from rft_run.cluster_text import cluster_object


class UnreadableStatus(ValueError):
    """The file ``status.yaml`` is invalid, or this release cannot read it. The message has its path."""


def write_status(path: Path, status: RFTJobStatus) -> None:
    """Write ``status`` as YAML to the file ``path`` atomically. Replace the secrets in its texts, and remove
    control characters.

    Raises OSError.
    """
    body = cluster_object(status.dump())
    atomic.write_text(path, yaml.safe_dump(body, sort_keys=False, allow_unicode=True))


def read_status(path: Path) -> RFTJobStatus:
    """Return the status in the YAML file ``path``, or an empty status if there is no file.

    Raises UnreadableStatus if the file is invalid, and OSError.
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
    """Return the YAML object in a status file as it is. An empty file gives an empty object.

    Raises ValueError if the file has no valid YAML or another YAML value, and OSError.
    """
    value = run_files.yaml_value(run_files.text(path, run_files.STATUS_BYTES))
    if not isinstance(value, dict | None):
        raise ValueError("is not a YAML object")
    return value or {}
