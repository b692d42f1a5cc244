"""Removes what a score leaves behind, so that it cannot affect the next one: processes and files."""

import contextlib
import shutil
import tempfile
import time
from pathlib import Path

from rft_graders.processes import is_running, kill_found, tree_of

_KILL_SECONDS = 2.0
_POLL_SECONDS = 0.002


class Started:
    """The processes that a worker has started, apart from those that ran when its source was loaded."""

    def __init__(self, guard: int) -> None:
        """Keep the processes that run now, from the worker's guard downwards."""
        self._guard = guard
        self._kept = frozenset(tree_of(guard))

    def kill(self) -> tuple[int, bool]:
        """Kill the other processes. Return how many were found, and whether none of them runs any more.

        A process that starts another one and ends, again and again, may outrun this.
        """
        killed: set[int] = set()
        deadline = time.monotonic() + _KILL_SECONDS
        while running := {pid for pid in self._found() if is_running(pid)}:
            killed |= running
            if time.monotonic() >= deadline:
                return len(killed), False
            killed |= kill_found(self._found)
            time.sleep(_POLL_SECONDS)
        return len(killed), True

    def _found(self) -> set[int]:
        return set(tree_of(self._guard)) - self._kept


class Home:
    """A worker's folder: its home, its working directory and the place of its temporary files."""

    def __init__(self, parent: Path) -> None:
        """Make the folder."""
        self.path = Path(tempfile.mkdtemp(prefix="worker-", dir=parent))
        self._kept: frozenset[str] = frozenset()

    def keep(self) -> None:
        """Keep the files and folders that are in it now."""
        self._kept = self._names()

    def empty(self) -> bool:
        """Remove the other files and folders. Return whether all of them are gone."""
        try:
            for name in self._names() - self._kept:
                _remove(self.path / name)
            return self._names() <= self._kept
        except (OSError, RecursionError):
            return False

    def remove(self) -> None:
        """Remove the folder. What cannot be removed stays until the grader process ends."""
        with contextlib.suppress(OSError, RecursionError):
            _remove(self.path)

    def _names(self) -> frozenset[str]:
        return frozenset(entry.name for entry in self.path.iterdir())


def _remove(path: Path) -> None:
    """Remove a file, a link or a folder. Links are not followed. Raises OSError and RecursionError."""
    if path.is_symlink() or not path.is_dir():
        path.unlink()
    else:
        shutil.rmtree(path)
