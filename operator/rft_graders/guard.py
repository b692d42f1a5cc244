"""The guard of a worker: the parent process of a process that runs users' code. It kills the worker and all
processes that the worker has started.

This module imports only the standard library and files beside it. The guard runs no users' code.

A Landlock domain is a group of processes that the kernel separates from other processes. If Landlock
confines signals, the worker's domain is inside the guard's domain. Then the worker cannot signal the guard,
and the guard's signals reach only the worker and its programs. So one system call kills all of them, even if
they fork fast.
"""

import contextlib
import ctypes
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from rft_graders import confinement, processes
else:  # worker.py has loaded these files, without their package
    confinement, processes = sys.modules["_rft_confinement"], sys.modules["_rft_processes"]

PR_SET_PDEATHSIG = 1
_WATCHED = (signal.SIGTERM, signal.SIGCHLD)


def end_with_parent(parent: int, number: signal.Signals) -> None:
    """Let the kernel send this process the signal ``number`` when its parent ends.

    If the parent, which has the PID ``parent``, has already ended, exit now.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os._exit(1)


def fork_worker(level: "confinement.Level", descriptor: int) -> None:
    """Fork this process. The child becomes the worker and returns. This process becomes its guard.

    The guard ends with the exit code or the signal of the worker. On SIGTERM, or when the grader process
    ends, the guard kills the worker.

    - ``level``: how strongly the kernel separates this process from others. This decides how the guard kills
      the worker's programs.
    - ``descriptor``: the worker's socket. The guard closes it.
    """
    parent, guard = os.getppid(), os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    worker = os.fork()
    if worker:
        os.close(descriptor)
        end_with_parent(parent, signal.SIGTERM)
        _watch(worker, level)
    end_with_parent(guard, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)


def _watch(worker: int, level: "confinement.Level") -> NoReturn:
    processes.adopt_orphans()
    status: int | None = None
    while status is None and signal.sigwait(_WATCHED) == signal.SIGCHLD:
        status = _reaped(worker, os.WNOHANG)
    _kill_all(level)
    last = _reaped(worker, 0)
    _end_like(last if status is None else status)


def _kill_all(level: "confinement.Level") -> None:
    """Kill all descendants of this process. ``level``: how strongly the kernel separates this process and its
    descendants from others. If it confines signals, one system call kills all of them.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if level >= confinement.Level.SIGNALS and _parent_is_out_of_reach():
            os.kill(-1, signal.SIGKILL)
    processes.kill_found(lambda: processes.tree_of(os.getpid())[1:])


def _parent_is_out_of_reach() -> bool:
    """Return whether this process cannot send signals to its parent, because the kernel confines signals."""
    try:
        os.kill(os.getppid(), 0)
    except PermissionError:
        return True
    return False


def _reaped(worker: int, options: int) -> int | None:
    """Remove the zombies of this process's children. If the worker is one of these zombies, return its exit
    status in the form of ``os.waitpid``, else None.

    ``worker``: the PID of the worker. ``options``: WNOHANG, or 0 to wait until all children have ended.
    """
    found: int | None = None
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, options)
            if pid == 0:
                break
            if pid == worker:
                found = status
    return found


def _end_like(status: int | None) -> NoReturn:
    """End this process in the same way as the worker: with the worker's exit code, or by the worker's signal.

    ``status`` is in the form of ``os.waitpid``. None: it is not known, and the exit code is 1.
    """
    code = 1 if status is None else os.waitstatus_to_exitcode(status)
    if code < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no handler
            signal.signal(-code, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
        os.kill(os.getpid(), -code)
    os._exit(abs(code))
