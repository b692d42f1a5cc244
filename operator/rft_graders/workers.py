"""Used in the grader process: starts a worker process for users' code, sends requests to it, and ends it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rft_graders.confinement import Level
from rft_graders.ids import RequestIds
from rft_graders.leftovers import Home, Started
from rft_graders.printed import PrintedText
from rft_graders.processes import kill_tree
from rft_graders.protocol import MAX_ERROR_CHARACTERS, Closed, LineReader, ProtocolError, encode
from rft_graders.watchdog import Children, end
from rft_run.config import PythonGrader

LOAD_SECONDS = 60.0
"""Maximum seconds for loading a user's source. Imports such as sympy take some seconds."""

_WORKER = Path(__file__).with_name("worker.py")
_MAX_WORKER_REPLY_BYTES = 48 * 1024
_END_SECONDS = 5.0
_DEATH_SECONDS = 1.0
_PING_SECONDS = 2.0
"""Maximum seconds for a worker's reply to a ping, a request that only tests whether the worker answers.

A ping is sent after a score that left processes or files, because one of these processes may have stopped or
killed the worker."""


class ScoreFailed(Exception):
    """A worker gave no score for a request, for example because the user's code raised an exception.

    The worker process still runs, except if the error is of the subclass WorkerLost.
    """


class WorkerLost(ScoreFailed):
    """A worker gave no score for a request, because the worker process did not start, ended or was killed."""

    def __init__(self, message: str, *, earlier: bool = False) -> None:
        """Create the error with a message.

        ``earlier``: whether the cause is older than the failed request. For example, code of an earlier
        request has killed the worker. Then the request can be sent again, to a new worker.
        """
        super().__init__(message)
        self.earlier = earlier


class Forged(WorkerLost):
    """Users' code wrote into the connection on which its worker process sends scores to the grader process.

    Only the worker's own program may write replies into this connection. So the worker was killed.
    """

    def __init__(self, what: str, *, earlier: bool) -> None:
        """Create the error.

        - ``what``: the unexpected data in the connection, in words, such as ``more than one reply``.
        - ``earlier``: whether code of an earlier request wrote this data. Then the current request can be
          sent again, to a new worker.
        """
        message = f"forged reply: the user's code wrote into the connection of its worker process: {what};"
        super().__init__(f"{message} the worker was replaced", earlier=earlier)


@dataclass(frozen=True)
class Code:
    """The data with which a worker process of a grader or an environment is started.

    - ``grader``: the grader's settings, such as the name of the function and the time limit.
    - ``source``: the Python source of the grader.
    - ``memory_bytes``: the memory limit of each process.
    - ``homes``: the folder in which each worker gets its home folder.
    """

    grader: PythonGrader
    source: str
    memory_bytes: int
    homes: Path


def worker_environment(home: Path) -> dict[str, str]:
    """Return all environment variables for a process that runs users' code.

    The trainer's own variables are left out, because they may have tokens and proxies. Some variables limit
    each numeric library to one thread. ``home``: the home folder of the process.
    """
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(home),
        "TMPDIR": str(home),
        "LANG": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        "PYTHONIOENCODING": "utf-8:backslashreplace",  # printing never fails, whatever the text is
        **dict.fromkeys(threads, "1"),
    }


class GraderWorker:
    """A worker process for one user's function or environment class, as the grader process controls it.

    The object starts the process, sends requests to it, and ends it.
    """

    level: Level
    """How far the kernel separates the worker process and its programs from other processes."""
    filtered = False
    """Whether a filter of system calls keeps users' code from changing the limits and priorities of other
    processes."""
    value: dict[str, Any] | None = None
    """The result of the environment's last action, such as ``reset`` or a tool call. None if the worker runs
    a grader."""

    def __init__(self, code: Code, children: Children) -> None:
        """Start the worker process, add it to ``children``, and let it load the source in ``code``.

        Raises WorkerLost if the source cannot be loaded, and OSError if no process can be started.
        """
        self._name = code.grader.name
        self._children = children
        self._ids = RequestIds()
        self._connection, theirs = socket.socketpair()
        # -B: nothing is written beside the user's files. -u: what is printed before a crash is not lost.
        command = [sys.executable, *("-s", "-P", "-B", "-u"), str(_WORKER), str(theirs.fileno())]
        with theirs, children.lock:
            if children.closing:
                raise WorkerLost("the grader process is ending and starts no more workers")
            self._home = Home(code.homes)
            self._output = PrintedText()
            try:
                self._process = subprocess.Popen(
                    [*command, str(os.getpid())],
                    stdin=subprocess.DEVNULL,
                    stdout=self._output.write_end,
                    stderr=subprocess.STDOUT,
                    pass_fds=(theirs.fileno(),),
                    env=worker_environment(self._home.path),
                    cwd=self._home.path,
                    start_new_session=True,
                )
            finally:
                os.close(self._output.write_end)
            children.workers.add(self._process.pid)
        self._left = False
        self._reader = LineReader(self._connection, _MAX_WORKER_REPLY_BYTES)
        self._load(code)

    def _load(self, code: Code) -> None:
        setup = {
            "source": code.source,
            "function": code.grader.function,
            "path": code.grader.source_path,
            "environment": code.grader.slots is not None,
            "memoryBytes": code.memory_bytes,
        }
        try:
            # Before it loads any code, the worker says how it is confined.
            self.level = Level(int(self._exchange(setup, LOAD_SECONDS)))
            self.filtered = bool((self.value or {}).get("filtered"))
            self._exchange({}, LOAD_SECONDS)
        except WorkerLost:
            raise
        except ScoreFailed as error:
            self.kill()
            raise WorkerLost(str(error)) from error
        finally:
            # This text belongs to no rollout, so it goes to standard error.
            if printed := self.printed():
                self._say(f"printed while it was loaded: {printed}")
        self._started = Started(self._process.pid)
        self._home.keep()

    def printed(self) -> str:
        """Return the text that the worker process printed since the last call, "" if it printed none."""
        return self._output.take()

    def score(self, request: dict[str, Any], timeout: float) -> float:
        """Send a request to the worker process. Return the raw score.

        For an environment the score is 0, and ``value`` has the result of the action. ``timeout`` is in
        seconds. Raises ScoreFailed if the user's code fails. Raises WorkerLost if the worker process has
        ended, or was killed, for example because of the timeout.
        """
        if self._reader.has_more():
            self.kill()
            raise Forged("a reply, although no request was open", earlier=True)
        # The watchdog may have killed this worker for the processes or the memory of the last request.
        if self._children.was_stopped(self._process.pid) or self._reader.has_ended():
            raise WorkerLost(f"{self.kill(_DEATH_SECONDS)}, after its last score", earlier=True)
        return self._exchange(request, timeout)

    def clean(self) -> int:
        """Remove the processes and files that users' code left after the last request. Return the number of
        killed processes.

        Kills the worker and raises WorkerLost in these cases:

        - a process or a file cannot be removed
        - a process that was started while the source was loaded does not run any more
        - the worker does not answer
        """
        if not self._left:
            return 0
        killed, gone = self._started.kill()
        if not (gone and self._home.empty()):
            self.kill()
            what = "files" if gone else "processes"
            raise WorkerLost(
                f"the user's code left {what} that cannot be removed, so its worker process was replaced"
            )
        if not self._started.kept_run():
            self.kill()
            raise WorkerLost(
                "the worker process was replaced: it has ended or is stopped, or a process has that the"
                " source started while it was loaded"
            )
        # Also if nothing was killed: a process may have sent a signal to the worker and then ended by itself.
        # A worker with a pending SIGKILL still looks alive, but it cannot answer.
        try:
            self._exchange({"ping": True}, _PING_SECONDS)
        except WorkerLost as error:
            raise WorkerLost(
                f"after a score the worker did not answer, so it was replaced: {error}"
            ) from error
        return killed

    def _exchange(self, message: dict[str, Any], timeout: float) -> float:
        number = self._ids.next()
        try:
            self._send({**message, "id": number}, timeout)
            reply = self._reader.read(timeout)
        except TimeoutError as error:
            self.kill()
            raise WorkerLost(f"no score within {timeout:g} s") from error
        except ProtocolError as error:
            self.kill()
            raise Forged(str(error), earlier=False) from error
        except (Closed, OSError) as error:
            raise WorkerLost(self.kill(_DEATH_SECONDS)) from error
        if reply.get("id") != number:
            self.kill()
            earlier = self._ids.was_given(reply.get("id"))
            raise Forged(f"a reply with an {'earlier' if earlier else 'unknown'} id", earlier=earlier)
        if self._reader.has_read_more:
            self.kill()
            raise Forged("more than one reply", earlier=False)
        self._left = bool(reply.get("left"))
        value = reply.get("value")
        self.value = value if isinstance(value, dict) else None
        score, failure = reply.get("score"), reply.get("error")
        if isinstance(failure, str):
            raise ScoreFailed(failure[:MAX_ERROR_CHARACTERS])
        if not isinstance(score, int | float):
            self.kill()
            raise Forged("a reply without a score", earlier=False)
        return float(score)

    def _send(self, message: dict[str, Any], timeout: float) -> None:
        try:
            self._connection.settimeout(timeout)
            self._connection.sendall(encode(message))
        except ConnectionError as error:  # the worker had ended before it read the message
            raise WorkerLost(self.kill(_DEATH_SECONDS), earlier=True) from error

    def kill(self, patience: float = 0.0) -> str:
        """Kill the worker process and all processes that it has started. Remove its home folder.

        Return a sentence that says how the worker process ended. A worker that has closed its socket may be
        about to end. So first wait for its exit status, up to ``patience`` seconds.
        """
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(patience)
        died = self._process.returncode
        if died is None:
            self._end()
        self._connection.close()
        stopped = self._children.forget(self._process.pid)
        with self._children.lock:
            self._children.kill_orphans()
        self._home.remove()
        if stopped is not None:
            return f"the worker was killed: {stopped}"
        return "the worker process closed the connection" if died is None else _ending(died)

    def _end(self) -> None:
        """Make the worker's parent process, the guard, kill the worker and all processes that the worker has
        started. Wait until the guard has ended too.
        """
        end(self._process.pid)
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:  # users' code has stopped the guard, where the kernel lets it
            kill_tree(self._process.pid)
            self._process.wait()

    def _say(self, text: str) -> None:
        print(f"grader {self._name} {text}", file=sys.stderr)


def _ending(code: int) -> str:
    if code >= 0:
        return f"the worker ended with exit code {code}"
    return f"the worker was killed by the signal {signal.Signals(-code).name}"
