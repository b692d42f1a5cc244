"""Process trees, read from Linux's /proc."""

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
    """Become the parent of descendants whose parent ends (a subreaper), so that none leaves the tree."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children_of(pid: int) -> list[int]:
    """Return the children of a process, zombies included; empty when the process has ended."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in (_PROC / str(pid) / "task").iterdir():
            with contextlib.suppress(OSError):
                found += map(int, (task / "children").read_text().split())
    return found


def tree_of(pid: int) -> list[int]:
    """Return a process and all its descendants, parents first."""
    members = [pid]
    for member in members:  # the list grows during the iteration
        members += children_of(member)
    return members


def memory_of(pids: Iterable[int]) -> int:
    """Return the memory of the processes in bytes, without file pages, which are shared with others."""
    kibibytes = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in (_PROC / str(pid) / "status").read_text(errors="replace").splitlines():
                if line.startswith(("RssAnon:", "RssShmem:")):
                    kibibytes += int(line.split()[1])
    return kibibytes * 1024


def kill_tree(pid: int, rounds: int = 20) -> None:
    """Kill a process and its descendants. All are stopped first, so that a fork bomb cannot go on forking."""
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
    """Collect the exit status of a child that has ended; do nothing for other processes."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
