"""Removes the processes and files that users' code leaves behind after it has scored a completion, so that
they cannot affect later scores.
"""

import contextlib
import shutil
import tempfile
import time
from pathlib import Path

from rft_graders.processes import children_of, is_running, kill_found, state_of, tree_of

_KILL_SECONDS = 2.0
_POLL_SECONDS = 0.002
_MAX_ZOMBIES = 16
"""Maximum number of zombies that a score may leave. A zombie is an ended process for which its parent has
not waited. Each zombie holds a PID."""


class Started:
    """Kills the processes that a worker's code started while it scored a completion. Processes that were
    started earlier, while the source was loaded, are kept.
    """

    def __init__(self, guard: int) -> None:
        """Store the processes that run now, and that ``kill`` must keep: the worker's parent process (the
        guard, with the PID ``guard``) and all its descendants.
        """
        self._guard = guard
        self._states = {pid: state_of(pid) for pid in tree_of(guard)}
        self._kept = self._states.keys()

    def kill(self) -> tuple[int, bool]:
        """Kill all processes of the worker that were started after this object was created.

        Return two values: the number of running processes that were found, and whether the cleaning
        succeeded. It fails if a process still runs after ``_KILL_SECONDS``, or if more than ``_MAX_ZOMBIES``
        zombies are left. Processes may be missed if each of them starts the next one and ends at once.
        """
        killed: set[int] = set()
        deadline = time.monotonic() + _KILL_SECONDS
        while True:
            found = self._found()
            running = {pid for pid in found if is_running(pid)}
            if not running:
                break
            killed |= running
            if time.monotonic() >= deadline:
                return len(killed), False
            killed |= kill_found(self._found)
            time.sleep(_POLL_SECONDS)
        # The guard waits for its own children, so their zombies do not stay.
        zombies = found - set(children_of(self._guard)) if found else found
        return len(killed), len(zombies) <= _MAX_ZOMBIES

    def kept_run(self) -> bool:
        """Return whether all processes that ran when this object was created still run, and none is stopped.

        Processes that were already zombies at that time do not count.
        """
        return all(
            state is None or state_of(pid) == state._replace(stopped=False)
            for pid, state in self._states.items()
        )

    def _found(self) -> set[int]:
        return set(tree_of(self._guard)) - self._kept


class Home:
    """A worker's folder: its home, its working directory and the place of its temporary files."""

    def __init__(self, parent: Path) -> None:
        """Create a new folder for a worker in the folder ``parent``."""
        self.path = Path(tempfile.mkdtemp(prefix="worker-", dir=parent))
        self._kept: frozenset[str] = frozenset()

    def keep(self) -> None:
        """Store the names of the files and folders that are in the worker's folder now. ``empty`` does not
        remove them.
        """
        self._kept = self._names()

    def empty(self) -> bool:
        """Remove all files and folders that were not in the worker's folder at the last call of ``keep``.
        Return False if one of them cannot be removed, else True.
        """
        try:
            for name in self._names() - self._kept:
                _remove(self.path / name)
            return self._names() <= self._kept
        except (OSError, RecursionError):
            return False

    def remove(self) -> None:
        """Remove the worker's folder, after the worker has ended. If a file cannot be removed, no error is
        raised, and the file stays until the grader process ends.
        """
        with contextlib.suppress(OSError, RecursionError):
            _remove(self.path)

    def _names(self) -> frozenset[str]:
        return frozenset(entry.name for entry in self.path.iterdir())


def _remove(path: Path) -> None:
    """Remove a file, a link (not its target) or a folder with its content.

    Raises OSError or RecursionError if this fails.
    """
    if path.is_symlink() or not path.is_dir():
        path.unlink()
    else:
        shutil.rmtree(path)
