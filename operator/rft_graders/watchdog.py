"""Limits the number and the memory of all processes of users' code together.

Resource limits of Linux cannot do this: RLIMIT_AS applies to each process separately, and RLIMIT_NPROC counts
all processes of the UID, on a node even processes of other pods.
"""

import contextlib
import os
import signal
import threading

from rft_graders.processes import children_of, is_running, kill_tree, memory_of, reap, tree_of

INTERVAL_SECONDS = 0.1
OWN_PROCESSES = 2
"""Number of processes of a worker without users' code: the worker itself and its guard."""
MAX_ZOMBIES = 256
"""Maximum number of zombies of a worker during a score. A zombie holds a PID, but no memory."""


class Children:
    """The set of running worker processes of the grader process.

    The children of the grader process are guards. Each guard is the parent of one worker, and its PID stands
    for this worker in the set. Any other child is an orphan: a process that an ended worker has left.
    """

    def __init__(self) -> None:
        """Create an empty set of workers."""
        self.lock = threading.Lock()
        """Lock for the start of a worker. Without it, the watchdog could kill the new worker as an orphan."""
        self.workers: set[int] = set()
        self.stopped: dict[int, str] = {}
        """The reasons why the watchdog killed workers, by the PID of the worker's guard."""
        self.closing = False

    def kill_orphans(self) -> None:
        """Kill the processes that ended workers have left, and remove their zombies. The caller must hold
        ``lock``.
        """
        for child in children_of(os.getpid()):
            if child not in self.workers and child not in self.stopped:
                kill_tree(child)
                reap(child)

    def forget(self, pid: int) -> str | None:
        """Remove an ended worker from the set. ``pid`` is the PID of the worker's parent process, the guard.

        Return the reason why the watchdog killed the worker. None: the watchdog did not kill it.
        """
        with self.lock:
            self.workers.discard(pid)
            return self.stopped.pop(pid, None)

    def was_stopped(self, pid: int) -> bool:
        """Return whether the watchdog has killed a worker. ``pid`` is the PID of the worker's parent process,
        the guard. If the watchdog is checking the processes at this moment, wait until the check has ended.
        """
        with self.lock:
            return pid in self.stopped

    def kill_all(self) -> None:
        """Kill all descendants of this process, and prevent the start of new workers."""
        with self.lock:
            self.closing = True
            for child in children_of(os.getpid()):
                kill_tree(child)


def end(guard: int) -> None:
    """Ask a worker's parent process, the guard, to kill the worker and all processes that the worker has
    started, and then to end. ``guard`` is the PID of the guard. Do not wait.
    """
    with contextlib.suppress(ProcessLookupError):
        os.kill(guard, signal.SIGTERM)


class Watchdog:
    """Kills the worker with the most processes or memory when all workers together exceed a limit."""

    def __init__(self, children: Children, max_processes: int, memory_bytes: int) -> None:
        """Set the limits for all workers together.

        - ``max_processes``: number of running processes that the workers have started. Workers and guards are
          not counted.
        - ``memory_bytes``: memory of the workers and of all processes that they have started, in bytes.
        """
        self._children = children
        self._max_processes = max_processes
        self._memory_bytes = memory_bytes

    def start(self) -> None:
        """Check the limits every tenth of a second, in a thread, until the grader process closes."""
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def _run(self) -> None:
        pause = threading.Event()
        while not self._children.closing:
            if not self.look():
                pause.wait(INTERVAL_SECONDS)

    def look(self) -> bool:
        """Kill the processes that ended workers have left. Then check both limits once.

        If a limit is exceeded, kill the worker with the most processes or the most memory, and return True.
        Otherwise return False.
        """
        with self._children.lock:
            self._children.kill_orphans()
            # A fork bomb leaves this process little time, so not all of its processes are looked at.
            most = self._max_processes + OWN_PROCESSES + MAX_ZOMBIES
            trees = {worker: tree_of(worker, most) for worker in self._children.workers}
            started = {worker: _started(tree, most) for worker, tree in trees.items()}
            if sum(started.values()) > self._max_processes:
                biggest = max(started, key=lambda worker: started[worker])
                return self._kill(biggest, f"users' code ran more than {self._max_processes} processes")
            memory = {worker: memory_of(tree[1:]) for worker, tree in trees.items()}
            if sum(memory.values()) > self._memory_bytes:
                biggest = max(memory, key=lambda worker: memory[worker])
                return self._kill(
                    biggest, f"users' code used over {self._memory_bytes // 2**20} MiB of memory"
                )
        return False

    def _kill(self, worker: int, reason: str) -> bool:
        self._children.stopped[worker] = reason
        self._children.workers.discard(worker)
        end(worker)
        return True


def _started(tree: list[int], most: int) -> int:
    """Return the number of running processes that a worker has started.

    ``tree``: the PIDs of the worker's parent process (the guard) and of all descendants of the guard. If
    ``tree`` has more than ``most`` PIDs, processes that have ended (zombies) count too.
    """
    if len(tree) <= OWN_PROCESSES:
        return 0
    counted = tree if len(tree) > most else [pid for pid in tree if is_running(pid)]
    return len(counted) - OWN_PROCESSES
