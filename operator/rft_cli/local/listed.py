"""Finds the runs in a folder and reads their statuses, for the pages that ``rft ui`` serves."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from rft_api.status import RFTJobStatus
from rft_cli.errors import UNREADABLE, UserError
from rft_cli.local import records
from rft_run.folder import RunFolder


class Listed(NamedTuple):
    """A run in the table of runs that ``rft ui`` shows. If the run's status cannot be read, ``problem`` says
    why. Otherwise ``problem`` is empty.
    """

    name: str
    status: RFTJobStatus
    problem: str = ""


def run_folders(folder: Path) -> dict[str, Path]:
    """Find the folders of runs. Return ``folder`` itself if it has a run, else its subfolders with a run. The
    key is the folder's name.

    Links are left out, because they may lead out of ``folder``.

    Raises:
        UserError: if there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder", UNREADABLE)
    if RunFolder(folder).config.is_file():
        return {folder.resolve().name: folder}
    inner = sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())
    return {path.name: path for path in inner if RunFolder(path).config.is_file()}


def listed(folders: Mapping[str, Path]) -> list[Listed]:
    """Read the status of the run in each of ``folders``, which are given by name.

    If a status cannot be read, the entry of this run has an empty status and a ``problem``.
    """
    found = []
    for name, path in folders.items():
        try:
            found.append(Listed(name, records.status(RunFolder(path).status)))
        except UserError as error:
            found.append(Listed(name, RFTJobStatus(), str(error)))
    return found
