"""Reads the children and the memory of processes from /proc on Linux, and kills process trees."""

import contextlib
import ctypes
import os
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

PR_SET_CHILD_SUBREAPER = 36

_PROC = Path("/proc")


class State(NamedTuple):
    """When a process was started, and whether it is stopped. A process that has ended has no such state."""

    start: int
    """When the process was started, in clock ticks since the boot of the machine. No other process has the
    same PID and the same time."""
    stopped: bool
    """Whether a signal or a debugger has stopped the process."""


def adopt_orphans() -> None:
    """Make this process a subreaper: when a descendant ends, its children become children of this process."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children_of(pid: int) -> list[int]:
    """Return the PIDs of a process's children, zombies included. Return [] if the process has ended."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in (_PROC / str(pid) / "task").iterdir():
            with contextlib.suppress(OSError):
                found += map(int, (task / "children").read_text().split())
    return found


def tree_of(pid: int, at_most: int | None = None) -> list[int]:
    """Return the PIDs of a process and all its descendants, parents before their children.

    The search ends early when more than ``at_most`` PIDs are found. None: there is no such limit.
    """
    members = [pid]
    for member in members:  # the list grows during the iteration
        members += children_of(member)
        if at_most is not None and len(members) > at_most:
            break
    return members


def memory_of(pids: Iterable[int]) -> int:
    """Return the sum of the resident memory of processes, in bytes. Mapped files do not count, because
    processes share them.
    """
    return sum(map(_memory, pids))


def _memory(pid: int) -> int:
    with contextlib.suppress(OSError):
        # The first thread may have ended. Then its status file has no memory values.
        for task in (_PROC / str(pid) / "task").iterdir():
            with contextlib.suppress(OSError):
                lines = (task / "status").read_text(errors="replace").splitlines()
                found = [int(line.split()[1]) for line in lines if line.startswith(("RssAnon:", "RssShmem:"))]
                if found:
                    return sum(found) * 1024
    return 0


def is_running(pid: int) -> bool:
    """Return whether a process is alive. A zombie counts as ended."""
    return state_of(pid) is not None


def state_of(pid: int) -> State | None:
    """Return when a process was started, and whether it is stopped. Return None if it has ended or is a
    zombie.
    """
    try:
        fields = (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    # A process whose first thread has ended looks like a zombie while its other threads run.
    letter, threads, start = fields[0], int(fields[17]), int(fields[19])
    if letter == b"X" or (letter == b"Z" and threads <= 1):
        return None
    return State(start, stopped=letter in (b"T", b"t"))


def kill_tree(pid: int) -> None:
    """Kill a process and all its descendants. They are stopped first, so that they start no new processes."""
    kill_found(lambda: tree_of(pid))


def kill_found(find: Callable[[], Iterable[int]], rounds: int = 20) -> set[int]:
    """Kill the processes whose PIDs ``find`` returns. Return all these PIDs.

    The processes are stopped first, so that they start no new processes. ``find`` is called until it returns
    no new PID, at most ``rounds`` times. Then all processes are killed.
    """
    stopped: set[int] = set()
    for _ in range(rounds):
        new = set(find()) - stopped
        if not new:
            break
        for member in new:
            _signal(member, signal.SIGSTOP)
        stopped |= new
    for member in stopped:
        _signal(member, signal.SIGKILL)
    return stopped


def reap(pid: int) -> None:
    """Remove the zombie of a child process that has ended. Do nothing for other processes."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
