"""Limits on all processes of users' code together: their number and their memory.

Per-process limits cannot do this: RLIMIT_AS counts each child separately, and RLIMIT_NPROC counts
every process of the UID, on a node even those of other pods.
"""

import os
import threading

from rft_graders.processes import children_of, kill_tree, memory_of, reap, tree_of

INTERVAL_SECONDS = 0.1


class Children:
    """The workers of this process. Any other child is an orphan that a worker's code left."""

    def __init__(self) -> None:
        """Start without workers."""
        self.lock = threading.Lock()
        """A lock that is held while a worker is started, so that the watchdog does not take it for an orphan.
        """
        self.workers: set[int] = set()
        self.stopped: dict[int, str] = {}
        """Why the watchdog killed a worker."""
        self.closing = False

    def forget(self, pid: int) -> str | None:
        """Remove a dead worker; return why the watchdog killed it, if it did."""
        with self.lock:
            self.workers.discard(pid)
            return self.stopped.pop(pid, None)

    def kill_all(self) -> None:
        """Kill all descendants and prevent the start of new workers."""
        with self.lock:
            self.closing = True
            for child in children_of(os.getpid()):
                kill_tree(child)


class Watchdog:
    """Enforces the limits by killing the worker that uses the most."""

    def __init__(self, children: Children, max_processes: int, memory_bytes: int) -> None:
        """``max_processes`` counts the processes that workers start, not the workers themselves."""
        self._children = children
        self._max_processes = max_processes
        self._memory_bytes = memory_bytes

    def start(self) -> None:
        """Check the limits every tenth of a second, in a thread, until the pool closes."""
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def _run(self) -> None:
        pause = threading.Event()
        while not self._children.closing:
            if not self.look():
                pause.wait(INTERVAL_SECONDS)

    def look(self) -> bool:
        """Kill orphans, and the biggest worker if a limit is exceeded; return whether one was killed."""
        with self._children.lock:
            workers = set(self._children.workers)
            for child in children_of(os.getpid()):
                if child not in workers:
                    kill_tree(child)
                    reap(child)
            trees = {worker: tree_of(worker) for worker in workers}
            started = {worker: len(tree) - 1 for worker, tree in trees.items()}
            if sum(started.values()) > self._max_processes:
                biggest = max(started, key=lambda worker: started[worker])
                return self._kill(biggest, f"more than {self._max_processes} processes")
            memory = {worker: memory_of(tree) for worker, tree in trees.items()}
            if sum(memory.values()) > self._memory_bytes:
                biggest = max(memory, key=lambda worker: memory[worker])
                return self._kill(biggest, f"more than {self._memory_bytes // 2**20} MiB of memory")
        return False

    def _kill(self, worker: int, reason: str) -> bool:
        self._children.stopped[worker] = reason
        self._children.workers.discard(worker)
        kill_tree(worker)
        return True
