"""Reads and writes ``status.yaml``: the status of a local run, in the form of an RFTJob's status on a
cluster.
"""

from pathlib import Path

import yaml

from rft_api.status import RFTJobStatus
from rft_run import atomic


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
        return RFTJobStatus.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except FileNotFoundError:
        return RFTJobStatus()
    except (yaml.YAMLError, ValueError) as error:
        raise UnreadableStatus(f"{path}: is not a status that this version can read") from error
