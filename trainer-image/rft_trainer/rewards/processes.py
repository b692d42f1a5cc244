"""Process trees, as Linux shows them in /proc."""

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
    """Allow or refuse other processes of this UID to read this one's memory and environment."""
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, int(dumpable), 0, 0, 0)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends, so that none escapes the tree."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children_of(pid: int) -> list[int]:
    """Return the children of a process, zombies included; none when it is gone."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in (_PROC / str(pid) / "task").iterdir():
            with contextlib.suppress(OSError):
                found += map(int, (task / "children").read_text().split())
    return found


def tree_of(pid: int) -> list[int]:
    """Return a process and all its descendants, parents first."""
    members = [pid]
    for member in members:  # grows while it is walked
        members += children_of(member)
    return members


def memory_of(pids: Iterable[int]) -> int:
    """Return the memory that is these processes' own, in bytes: file pages that others share are not."""
    kibibytes = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in (_PROC / str(pid) / "status").read_text(errors="replace").splitlines():
                if line.startswith(("RssAnon:", "RssShmem:")):
                    kibibytes += int(line.split()[1])
    return kibibytes * 1024


def kill_tree(pid: int, rounds: int = 20) -> None:
    """Kill a process with all its descendants. All are stopped first: a fork bomb outruns mere killing."""
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
    """Collect a dead child, if it is one."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
