"""Checks whether users' code that scored a completion may have left processes or files.

If so, the grader process removes these processes and files before the next score.

The check runs in the worker process and takes microseconds. Users' code in the worker could deceive the
check. But such code can change later scores of its worker in any case. Programs that users' code starts
cannot deceive the check, because they cannot reach the worker's memory.

This module imports only the standard library.
"""

import contextlib
import os
import resource

_ONE_THREAD = 3
"""The link count (``st_nlink``) of the folder ``/proc/PID/task`` if the process has one thread. Each further
thread adds 1.
"""


class Traces:
    """Compares the processes and files of a worker process before and after a score. The object is used in
    this process itself.
    """

    def __init__(self, home: str) -> None:
        """Open the worker's folder ``home``, and three lists in /proc: the worker's threads, the worker's
        child processes, and the guard's child processes. ``left`` reads them after each score.

        The guard is the parent of the worker. If a process of the worker ends, its child processes become
        children of the guard.
        """
        own, guard = os.getpid(), os.getppid()
        self._only_child = b"%d " % own
        self._threads = self._own = self._guards = -1
        self._home = os.open(home, os.O_RDONLY)
        with contextlib.suppress(OSError):  # a kernel without these lists: ``left`` always returns True
            self._threads = os.open("/proc/self/task", os.O_RDONLY)
            self._own = os.open(f"/proc/self/task/{own}/children", os.O_RDONLY)
            self._guards = os.open(f"/proc/{guard}/task/{guard}/children", os.O_RDONLY)
        self._before = self._counted()

    def begin(self) -> None:
        """Store the present state of files and ended child processes, with which ``left`` compares later.
        Call this before each score.
        """
        self._before = self._counted()

    def left(self) -> bool:
        """Return whether the score since the last call of ``begin`` may have left a process or a file.

        Also True if this cannot be determined: on a kernel that does not list child processes, and while the
        worker has a second thread or a process that was started before ``begin``.
        """
        try:
            return (
                self._counted() != self._before
                or os.fstat(self._threads).st_nlink != _ONE_THREAD
                or bool(os.pread(self._own, 1, 0))
                or os.pread(self._guards, 32, 0) != self._only_child
            )
        except OSError:
            return True

    def _counted(self) -> tuple[int, int]:
        """Return two values that change if a score leaves files or runs a program.

        - the time at which a file in the home folder was last created or removed, in nanoseconds. The kernel
          updates it in steps of some milliseconds.
        - the number of page faults of all child processes that have ended. Every program causes page faults.
        """
        return os.fstat(self._home).st_mtime_ns, resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt
