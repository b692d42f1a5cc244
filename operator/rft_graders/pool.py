"""Starts the worker processes that run the code of graders and environments, and sends requests to them.

This module is used in the grader process. A worker that ends is replaced.
"""

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
"""The keys of a trainer's request that are sent to a worker. Other keys, such as the trainer's id of the
request, are not sent, because users' code could read them in the worker."""
_TRIES = 3
"""Maximum number of times that a request is sent to a worker. It is sent again only if the cause of the
failure is older than the request: for example, code of an earlier request has killed the worker."""
_SHORTAGE_SECONDS = 0.5


class Log:
    """Writes lines to standard error of the grader process, which is the parent of the processes with users'
    code. The method ``once`` writes a line only once.
    """

    def __init__(self, *, says_levels: bool) -> None:
        """Create a log that has written no line yet.

        ``says_levels``: whether to log how strongly the kernel separates worker processes from other
        processes, even if the separation is complete.
        """
        self.says_levels = says_levels
        self._lock = threading.Lock()
        self._said: set[str] = set()

    def line(self, text: str) -> None:
        """Write a line to standard error at once."""
        print(text, file=sys.stderr, flush=True)

    def once(self, text: str) -> None:
        """Write a line, unless this method has written the same line before."""
        with self._lock:
            if text in self._said:
                return
            self._said.add(text)
        self.line(text)


class Slot:
    """Keeps one worker process for a grader or an environment. The first request starts the process. If the
    process ends, the next request starts a new one.
    """

    def __init__(self, code: Code, children: Children, log: Log) -> None:
        """Create a slot without a worker process. ``start`` or the first request starts the process.

        - ``code``: the source that the worker process runs.
        - ``children``: the set of running workers, to which the new worker is added.
        """
        self._code = code
        self._children = children
        self._log = log
        self._worker: GraderWorker | None = None

    def start(self) -> GraderWorker:
        """Return the worker process of this slot. If none runs, start one, which loads the user's source.

        Raises WorkerLost if the source cannot be loaded, and OSError if no process can be started.
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
        """Send a request of the trainer to the worker process. Return the reply for the trainer.

        The reply has the request's id, and the score or an error message. ``rft_graders.protocol`` describes
        requests and replies.
        """
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
        """Return whether the request ``asked`` can be sent again to a new worker process.

        This is true for every request to a grader. For an environment it is true only between two rollouts,
        because the state of a rollout is in the memory of the old process, and is lost with it.
        """
        return self._code.grader.slots is None or asked["row"].get("do") in ("describe", "reset", "end")

    def _score(self, asked: dict[str, Any], seconds: float, reply: dict[str, Any]) -> float:
        """Send the request ``asked`` to the worker process. Return the score, or 0 for an environment.

        Put the text that users' code printed, and the result of an environment's action, into ``reply``.
        Raises ScoreFailed if users' code fails. Raises WorkerLost if the worker process cannot start, ends,
        is killed, or gives no score within ``seconds``.
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
                    f"grader {name} left processes running after a score, and they were killed. This is done"
                    " after every score. To keep a process, start it at the top level of the source"
                )
        except WorkerLost as error:
            self._worker = None
            self._log.line(f"grader {name}: {error}")


class Pool:
    """Runs the worker processes of all graders. Each worker has its own thread in the grader process.

    The threads never end, because the kernel kills a worker when the *thread* that started it ends.
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

        - ``home``: folder in which each worker gets its home folder.
        - ``children``: the set of running workers, to which the new workers are added.
        - ``reply``: called with each reply to a request, by the thread of the worker.
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
        """Wait until a worker of each grader has loaded the grader's source, or has failed.

        Return the error message for each grader, by its name. None: the source is loaded.
        """
        return {name: loaded.result() for name, loaded in self._loaded.items()}

    def submit(self, request: dict[str, Any]) -> None:
        """Put a request into the queue of the grader that it names. Raises KeyError for an unknown grader.

        Do not wait for the reply. The function ``reply`` that ``__init__`` got is called with it later.
        """
        self._queues[request["grader"]].put(request)

    def _serve(
        self,
        slot: Slot,
        queued: "queue.SimpleQueue[dict[str, Any]]",
        loaded: "Future[str | None] | None",
    ) -> None:
        """Answer the requests in the queue ``queued`` with the worker process of ``slot``, one after the
        other. Never returns.

        If ``loaded`` is given, first start the worker. Then set ``loaded`` to the error message if the
        grader's source cannot be loaded, else to None.
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
    """Return one queue name for each worker process of a grader. The worker takes requests from this queue.

    The ``workers`` processes of a grader share one queue, so all names are equal. An environment has a worker
    for each of its slots, with a queue of its own, because all requests of a rollout must go to one worker.
    """
    if grader.slots is None:
        return [grader.name] * workers
    return [slot_name(grader.name, slot) for slot in range(grader.slots)]


def source_of(grader: PythonGrader) -> str:
    """Return the Python source of a grader: its inline text, or the content of its file.

    A file is decoded by the encoding that it declares. Raises OSError, ValueError or SyntaxError for a file
    that cannot be read.
    """
    if grader.inline is not None:
        return grader.inline
    assert grader.source_path is not None
    return importlib.util.decode_source(Path(grader.source_path).read_bytes())
