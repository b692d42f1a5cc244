"""Worker processes. Each handles one request at a time with a time limit, and is replaced when it ends."""

import contextlib
import importlib.util
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rft_graders.printed import PrintedText
from rft_graders.processes import kill_tree
from rft_graders.protocol import MAX_ERROR_CHARACTERS, Closed, LineReader, ProtocolError, encode
from rft_graders.watchdog import Children
from rft_run.config import GraderConfig, PythonGrader

LOAD_SECONDS = 60.0
"""Maximum seconds for loading a user's source. Imports such as sympy take some seconds."""

_WORKER = Path(__file__).with_name("worker.py")
_MAX_WORKER_REPLY_BYTES = 16 * 1024


class ScoreFailed(Exception):
    """The grader gave no score for a request. The worker process still runs."""


class WorkerLost(ScoreFailed):
    """The grader gave no score for a request, because the worker process ended or was killed."""


@dataclass(frozen=True)
class Code:
    """The source of a grader, its memory limit in bytes, and its home folder."""

    grader: PythonGrader
    source: str
    memory_bytes: int
    home: Path


def worker_environment(home: Path) -> dict[str, str]:
    """Return all environment variables of users' code: no tokens, no proxies, one thread for each library."""
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(home),
        "TMPDIR": str(home),
        "LANG": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        "PYTHONIOENCODING": "utf-8:backslashreplace",  # printing never fails, whatever a completion holds
        **dict.fromkeys(threads, "1"),
    }


class GraderWorker:
    """A worker process that runs one user's function."""

    def __init__(self, code: Code, children: Children) -> None:
        """Start the worker process and load the source. Raises WorkerLost if this fails."""
        self._children = children
        self._connection, theirs = socket.socketpair()
        # -B: nothing is written beside the user's files. -u: what is printed before a crash is not lost.
        command = [sys.executable, *("-s", "-P", "-B", "-u"), str(_WORKER), str(theirs.fileno())]
        with theirs, children.lock:
            if children.closing:
                raise WorkerLost("the grader process is ending and starts no more workers")
            self._output = PrintedText()
            try:
                self._process = subprocess.Popen(
                    [*command, str(os.getpid())],
                    stdin=subprocess.DEVNULL,
                    stdout=self._output.write_end,
                    stderr=subprocess.STDOUT,
                    pass_fds=(theirs.fileno(),),
                    env=worker_environment(code.home),
                    cwd=code.home,
                    start_new_session=True,
                )
            finally:
                os.close(self._output.write_end)
            children.workers.add(self._process.pid)
        self._reader = LineReader(self._connection, _MAX_WORKER_REPLY_BYTES)
        self._load(code)

    def _load(self, code: Code) -> None:
        setup = {
            "source": code.source,
            "function": code.grader.function,
            "path": code.grader.source_path,
            "memoryBytes": code.memory_bytes,
        }
        try:
            self._exchange(0, setup, LOAD_SECONDS)
        except WorkerLost:
            raise
        except ScoreFailed as error:
            self.kill()
            raise WorkerLost(str(error)) from error
        finally:
            # It belongs to no rollout.
            if printed := self.printed():
                print(f"grader {code.grader.name} printed while it was loaded: {printed}", file=sys.stderr)

    def printed(self) -> str:
        """Return the text that the worker process printed since the last call."""
        return self._output.take()

    def score(self, request: dict[str, Any], timeout: float) -> float:
        """Return the raw score for a request. ``timeout`` is in seconds.

        Raises ScoreFailed if the user's code fails, WorkerLost if the worker process ended.
        """
        return self._exchange(request["id"], request, timeout)

    def _exchange(self, number: int, message: dict[str, Any], timeout: float) -> float:
        try:
            self._connection.settimeout(timeout)
            self._connection.sendall(encode(message))
            reply = self._reader.read(timeout)
        except TimeoutError as error:
            self.kill()
            raise WorkerLost(f"no score within {timeout:g} s") from error
        except ProtocolError as error:
            self.kill()
            raise WorkerLost(f"the worker answered with {error}") from error
        except (Closed, OSError) as error:
            raise WorkerLost(self.kill()) from error
        score, failure = reply.get("score"), reply.get("error")
        if reply.get("id") == number and isinstance(failure, str):
            raise ScoreFailed(failure[:MAX_ERROR_CHARACTERS])
        if reply.get("id") != number or not isinstance(score, int | float):
            self.kill()
            raise WorkerLost("the worker answered with something that is not a score")
        return float(score)

    def kill(self) -> str:
        """Kill the worker process and its descendants. Return how the worker process ended."""
        # If the socket closed because the process died, its exit status follows in a moment.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.05)
        died = self._process.returncode
        kill_tree(self._process.pid)
        self._process.wait()
        self._connection.close()
        stopped = self._children.forget(self._process.pid)
        if stopped is not None:
            return f"the worker was killed: {stopped}"
        return "the worker process closed the connection" if died is None else _ending(died)


def _ending(code: int) -> str:
    if code >= 0:
        return f"the worker ended with exit code {code}"
    return f"the worker was killed by the signal {signal.Signals(-code).name}"


class Pool:
    """Worker processes for every grader. Each worker has its own thread.

    The threads never end, because a worker is killed when the *thread* that started it ends.
    """

    def __init__(
        self, config: GraderConfig, home: Path, children: Children, reply: Callable[[dict[str, Any]], None]
    ) -> None:
        """Start the first worker of each grader now. The others start when they get their first request."""
        self._children = children
        self._reply = reply
        self._queues: dict[str, queue.SimpleQueue[dict[str, Any]]] = {}
        self._loaded: dict[str, Future[str | None]] = {}
        for grader in config.graders:
            self._queues[grader.name] = queue.SimpleQueue()
            loaded = self._loaded[grader.name] = Future()
            try:
                code = Code(grader, source_of(grader), config.memory_mebibytes * 2**20, home)
            except (OSError, ValueError, SyntaxError) as error:
                loaded.set_result(f"the source cannot be read: {error}")
                continue
            for number in range(config.workers):
                first = loaded if number == 0 else None
                threading.Thread(target=self._serve, args=(code, first), daemon=True).start()

    def load(self) -> dict[str, str | None]:
        """Wait until all graders load. Return, by name, why a grader does not load, or None if it does."""
        return {name: loaded.result() for name, loaded in self._loaded.items()}

    def submit(self, request: dict[str, Any]) -> None:
        """Put a request into the queue of its grader. Raises KeyError for an unknown grader.

        Later the callback ``reply`` of this pool gets the reply.
        """
        self._queues[request["grader"]].put(request)

    def _serve(self, code: Code, loaded: "Future[str | None] | None") -> None:
        """Serve the requests of one grader, one after the other. Never returns."""
        worker: GraderWorker | None = None
        if loaded is not None:
            problem: str | None = None
            try:
                worker = GraderWorker(code, self._children)
            except Exception as error:  # the future must be set in any case, else the trainer waits for it
                problem = str(error) or type(error).__name__
            loaded.set_result(problem)
        while True:
            request = self._queues[code.grader.name].get()
            reply = {"id": request["id"]}
            lost = False
            try:
                worker = worker or GraderWorker(code, self._children)
                reply["score"] = worker.score(request, code.grader.timeout_seconds)
            except Exception as error:  # every request must get a reply, and the thread must not end
                lost = not isinstance(error, ScoreFailed) or isinstance(error, WorkerLost)
                reply["error"] = str(error) or type(error).__name__
            if worker is not None and (printed := worker.printed()):
                reply["printed"] = printed
            if lost:
                worker = None
            self._reply(reply)


def source_of(grader: PythonGrader) -> str:
    """Return the source of a python grader. A file is decoded by the encoding that it declares.

    Raises OSError, ValueError or SyntaxError for a file that cannot be read.
    """
    if grader.inline is not None:
        return grader.inline
    assert grader.source_path is not None
    return importlib.util.decode_source(Path(grader.source_path).read_bytes())
