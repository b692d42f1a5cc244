"""Finds the folder of a run from a command's argument."""

import re
from pathlib import Path

from rft_cli.cluster.folder import way_to
from rft_cli.errors import INVALID, UNREADABLE, UserError
from rft_cli.options import connect

_JOB_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


def run_folder(source: str, context: str | None, namespace: str | None, wanted: str) -> Path:
    """Return ``source`` if it is a folder on this machine.

    ``wanted`` is what the command reads in the folder, such as ``rollouts``.

    Raises:
        UserError: if there is no such folder. For a job in the cluster, whose folder is on a volume, the
            message says how to copy it.
    """
    path = Path(source)
    if path.is_dir():
        return path
    if not _JOB_NAME.fullmatch(source):
        raise UserError(f"{source}: there is no such folder", UNREADABLE)
    raise UserError(way_to(connect(context, namespace).job(source), wanted), INVALID)
