"""The guard of a worker: the process above it, which kills the worker and all that it has started, at once.

It imports only the standard library and files beside this one, and runs no users' code. Where Landlock
confines signals, the worker is in a domain inside the guard's: it cannot signal the guard, and the guard's
signals reach nothing but the worker and its programs. So one system call kills all of them, however fast they
fork.
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
    """Get the signal when the parent process ends. End now if it has ended already."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os._exit(1)


def fork_worker(level: "confinement.Level", descriptor: int) -> None:
    """Fork the worker, and return in it. This process becomes its guard, and closes the descriptor.

    The guard ends as the worker did. On SIGTERM, or when the grader process ends, it kills the worker.
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
    """Kill all descendants, and wait until they have ended."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if level >= confinement.Level.SIGNALS and _parent_is_out_of_reach():
            os.kill(-1, signal.SIGKILL)
    processes.kill_found(lambda: processes.tree_of(os.getpid())[1:])


def _parent_is_out_of_reach() -> bool:
    """Return whether the kernel confines signals indeed: a signal to everything must not leave the domain."""
    try:
        os.kill(os.getppid(), 0)
    except PermissionError:
        return True
    return False


def _reaped(worker: int, options: int) -> int | None:
    """Remove zombies of children. Return the exit status of the worker, or None if it still runs."""
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
    """End with the exit code or the signal of the worker."""
    code = 1 if status is None else os.waitstatus_to_exitcode(status)
    if code < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no handler
            signal.signal(-code, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
        os.kill(os.getpid(), -code)
    os._exit(abs(code))
