"""The worker processes of all graders. A worker that ends is replaced."""

import importlib.util
import queue
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from rft_graders.confinement import Level
from rft_graders.ids import slot_name
from rft_graders.watchdog import Children
from rft_graders.workers import Code, Forged, GraderWorker, ScoreFailed, WorkerLost
from rft_run.config import GraderConfig, PythonGrader

_GIVEN_TO_CODE = ("completion", "row", "tokens")
"""A worker gets only these keys of a request. So the worker does not get the trainer's id of the request."""
_TRIES = 3
"""Maximum number of times that a request is sent. It is sent again only if its worker was lost for a reason
that is older than the request."""
_SHORTAGE_SECONDS = 0.5


class Log:
    """Writes lines to standard error of the grader process. Some lines are written only once."""

    def __init__(self, *, says_levels: bool) -> None:
        """Create a log that has written no line yet.

        ``says_levels``: whether to log how workers are confined even if the kernel can confine them fully.
        """
        self.says_levels = says_levels
        self._lock = threading.Lock()
        self._said: set[str] = set()

    def line(self, text: str) -> None:
        """Write a line."""
        print(text, file=sys.stderr, flush=True)

    def once(self, text: str) -> None:
        """Write a line, unless the same line was written before."""
        with self._lock:
            if text in self._said:
                return
            self._said.add(text)
        self.line(text)


class Slot:
    """One worker process of a grader. The slot starts the worker when needed, and replaces it after its
    end.
    """

    def __init__(self, code: Code, children: Children, log: Log) -> None:
        """Start no process yet. ``start`` or the first request starts the worker process."""
        self._code = code
        self._children = children
        self._log = log
        self._worker: GraderWorker | None = None

    def start(self) -> GraderWorker:
        """Return the worker process. If none runs, start one.

        Raises WorkerLost if the worker does not load its source, and OSError if no process can be started.
        """
        if self._worker is None:
            self._worker = GraderWorker(self._code, self._children)
            level = self._worker.level
            if level < Level.SIGNALS or self._log.says_levels:
                self._log.once(f"how users' code is confined: {level.text}")
            if not self._worker.filtered:
                self._log.once(
                    "this kernel or architecture has no filter of system calls, so programs of users' code"
                    " can change the limits and priorities of other processes of the grader"
                )
        return self._worker

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the reply to a request of the trainer. If there is no score, the reply has the error."""
        asked = {key: request[key] for key in _GIVEN_TO_CODE if key in request}
        reply: dict[str, Any] = {}
        outcome: dict[str, Any] = {}
        forged = 0
        for _ in range(_TRIES):
            try:
                seconds = request.get("seconds", self._code.grader.timeout_seconds)
                outcome = {"score": self._score(asked, seconds, reply)}
            except WorkerLost as error:
                outcome = {"error": str(error)}
                if isinstance(error, Forged):
                    forged += 1
                if error.earlier or isinstance(error, Forged):
                    self._log.line(f"grader {self._code.grader.name}: {error}")
                if error.earlier and self._needs_no_state(asked):  # send the request to a new worker
                    reply.clear()  # what was printed belongs to the earlier request
                    continue
            except Exception as error:  # every request must get a reply, and the thread must not end
                outcome = {"error": str(error) or type(error).__name__}
            break
        return {"id": request["id"], **outcome, **reply, **({"forged": forged} if forged else {})}

    def _needs_no_state(self, asked: dict[str, Any]) -> bool:
        """Return whether a new worker can answer the request.

        This is true for every request to a grader. For an environment it is true only between two rollouts,
        because the state of a rollout is in its worker.
        """
        return self._code.grader.slots is None or asked["row"].get("do") in ("describe", "reset", "end")

    def _score(self, asked: dict[str, Any], seconds: float, reply: dict[str, Any]) -> float:
        """Return the worker's score of a completion.

        Put the text that users' code printed, and the result of an environment's action, into ``reply``.
        Raises ScoreFailed if users' code fails. Raises WorkerLost if the worker process ends, is killed, or
        gives no score within ``seconds``.
        """
        try:
            worker = self.start()
        except OSError as error:  # the machine has no process or descriptor to spare now
            time.sleep(_SHORTAGE_SECONDS)
            raise WorkerLost(f"the worker cannot start: {error}", earlier=True) from error
        try:
            score = worker.score(asked, seconds)
            if worker.value is not None:
                reply["value"] = worker.value
            return score
        except ScoreFailed as error:
            if isinstance(error, WorkerLost):
                self._worker = None
            raise
        except Exception:
            self._worker = None
            raise
        finally:
            if self._worker is not None:
                self._clean(worker)
            if printed := worker.printed():
                reply["printed"] = printed

    def _clean(self, worker: GraderWorker) -> None:
        name = self._code.grader.name
        try:
            if worker.clean():
                self._log.once(
                    f"grader {name} left processes running after a score. They were killed, as after every"
                    " score. To use a process for several scores, start it at the top level of the source"
                )
        except WorkerLost as error:
            self._worker = None
            self._log.line(f"grader {name}: {error}")


class Pool:
    """Worker processes for every grader. Each worker has its own thread.

    The threads never end, because a worker is killed when the *thread* that started it ends.
    """

    def __init__(
        self,
        config: GraderConfig,
        home: Path,
        children: Children,
        reply: Callable[[dict[str, Any]], None],
        log: Log,
    ) -> None:
        """Start the first worker of each grader now. Each other worker starts at its first request.

        - ``home``: folder for the homes of the workers.
        - ``reply``: called with each reply.
        """
        self._reply = reply
        self._queues: dict[str, queue.SimpleQueue[dict[str, Any]]] = {}
        self._loaded: dict[str, Future[str | None]] = {}
        for grader in config.graders:
            names = queue_names(grader, config.workers)
            self._queues |= {name: queue.SimpleQueue() for name in names}
            loaded = self._loaded[grader.name] = Future()
            try:
                code = Code(grader, source_of(grader), config.memory_mebibytes * 2**20, home)
            except (OSError, ValueError, SyntaxError) as error:
                loaded.set_result(f"the source cannot be read: {error}")
                continue
            for number, name in enumerate(names):
                first = loaded if number == 0 else None
                slot = Slot(code, children, log)
                queued = self._queues[name]
                threading.Thread(target=self._serve, args=(slot, queued, first), daemon=True).start()

    def load(self) -> dict[str, str | None]:
        """Wait until each grader is loaded or has failed to load. Return for each grader its error, or
        None.
        """
        return {name: loaded.result() for name, loaded in self._loaded.items()}

    def submit(self, request: dict[str, Any]) -> None:
        """Put a request into the queue of its grader. Raises KeyError for an unknown grader.

        When the reply is ready, the pool calls its callback ``reply`` with it.
        """
        self._queues[request["grader"]].put(request)

    def _serve(
        self,
        slot: Slot,
        queued: "queue.SimpleQueue[dict[str, Any]]",
        loaded: "Future[str | None] | None",
    ) -> None:
        """Answer the requests in the queue ``queued`` with the worker of ``slot``, one after the other. Never
        returns.

        If ``loaded`` is given, first start the worker. Then set ``loaded`` to why the grader does not load,
        or to None if it loads.
        """
        if loaded is not None:
            problem: str | None = None
            try:
                slot.start()
            except Exception as error:  # the future must be set in any case, else the trainer waits for it
                problem = str(error) or type(error).__name__
            loaded.set_result(problem)
        while True:
            self._reply(slot.answer(queued.get()))


def queue_names(grader: PythonGrader, workers: int) -> list[str]:
    """Return a list with an entry for each worker of a grader: the name of the queue that this worker reads.

    The workers of a grader share one queue. Each worker of an environment has its own queue, because all
    requests of a rollout must go to the same worker.
    """
    if grader.slots is None:
        return [grader.name] * workers
    return [slot_name(grader.name, slot) for slot in range(grader.slots)]


def source_of(grader: PythonGrader) -> str:
    """Return the source of a python grader. A file is decoded by the encoding that it declares.

    Raises OSError, ValueError or SyntaxError for a file that cannot be read.
    """
    if grader.inline is not None:
        return grader.inline
    assert grader.source_path is not None
    return importlib.util.decode_source(Path(grader.source_path).read_bytes())
