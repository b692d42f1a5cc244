"""Reads the children and the memory of processes from /proc on Linux, and kills process trees."""

import contextlib
import ctypes
import os
import signal
from collections.abc import Iterable
from pathlib import Path

PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36

_PROC = Path("/proc")


def set_dumpable(dumpable: bool) -> None:
    """Set whether other processes of this UID may read this process's memory and environment."""
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, int(dumpable), 0, 0, 0)


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


def tree_of(pid: int) -> list[int]:
    """Return the PIDs of a process and all its descendants, parents before their children."""
    members = [pid]
    for member in members:  # the list grows during the iteration
        members += children_of(member)
    return members


def memory_of(pids: Iterable[int]) -> int:
    """Return the memory of processes in bytes, without pages of files, which processes share."""
    kibibytes = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in (_PROC / str(pid) / "status").read_text(errors="replace").splitlines():
                if line.startswith(("RssAnon:", "RssShmem:")):
                    kibibytes += int(line.split()[1])
    return kibibytes * 1024


def kill_tree(pid: int, rounds: int = 20) -> None:
    """Kill a process and its descendants. All are paused first, so that they cannot start new processes."""
    stopped: set[int] = set()
    for _ in range(rounds):
        new = set(tree_of(pid)) - stopped
        if not new:
            break
        for member in new:
            _signal(member, signal.SIGSTOP)
        stopped |= new
    for member in stopped:
        _signal(member, signal.SIGKILL)


def reap(pid: int) -> None:
    """Remove the zombie of a child process that has ended. Do nothing for other processes."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
