"""Used in the trainer: sends requests for scores to the grader process over a socket, and reads the replies.

The messages are described in ``rft_graders.protocol``.
"""

import contextlib
import queue
import select
import socket
import time
from collections.abc import Callable, Container, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rft_graders.ids import RequestIds
from rft_graders.protocol import (
    MAX_ERROR_CHARACTERS,
    MAX_REPLY_BYTES,
    MAX_REQUEST_BYTES,
    Closed,
    LineReader,
    ProtocolError,
    encode,
)
from rft_run.errors import ConfigurationError, Preempted

WINDOW = 32
"""Maximum number of requests for scores that are sent and have no reply yet. 32 requests keep all workers
busy, and fit together into the memory of the grader process.
"""

_LARGEST_CONCURRENCY = 64
"""Maximum number of requests to environments that are sent and have no reply yet. An agent, which plays a
whole rollout itself, gets one request for it. This request has no reply until the rollout has ended.
"""
_POLL_SECONDS = 0.25
_REST_SECONDS = 0.05
"""Seconds to wait for the end of a reply of which a part has arrived. After this time, other requests are
sent, and the reply is read later."""

ShouldStop = Callable[[], bool]


class GraderLost(Exception):
    """The grader process cannot be used any more: it does not connect, has ended, does not reply in time, or
    breaks the protocol.
    """


@dataclass(frozen=True)
class GradeRequest:
    """A request to one grader for the score of one completion, or to an environment for one action.

    - ``grader``: the name of the grader. For an environment, the name that ``ids.slot_name`` returns.
    - ``completion``: the text that the grader reads. "" for an environment.
    - ``row``: the row of the dataset, with the messages of the prompt. For an environment, the action.
    """

    grader: str
    completion: str
    row: dict[str, Any]
    token_ids: Sequence[int] | None = None
    """The token ids of the completion, for graders that read them. None: they are not known."""
    seconds: float | None = None
    """Time limit of this request in seconds. None: the time limit of the grader."""

    def message(self, number: str) -> dict[str, Any]:
        """Return this request as the JSON object that the grader process gets. ``number`` is its id."""
        tokens = {} if self.token_ids is None else {"tokens": list(self.token_ids)}
        return {
            "id": number,
            "grader": self.grader,
            "completion": self.completion,
            "row": self.row,
            **tokens,
            **({} if self.seconds is None else {"seconds": self.seconds}),
        }


Outcome = float | ValueError
"""The result of a request: a raw score, or the error of the grader."""


class Graded(NamedTuple):
    """The reply to one request: the score or the error, and the text that the grader's code printed."""

    outcome: Outcome
    printed: str = ""
    forged: int = 0
    """The number of replies to this request that were refused, because the worker did not write them."""
    value: dict[str, Any] | None = None
    """The result of an environment's action. None for a grader."""


class Listener:
    """The trainer's Unix socket, to which the grader container connects. It accepts one connection only, so
    that users' code in the container cannot make a second one.
    """

    def __init__(self, path: str) -> None:
        """Listen on the socket file ``path`` with mode 0660. An older file with this path is replaced.

        Raises ConfigurationError if this is not possible.
        """
        self._path = Path(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._path.unlink(missing_ok=True)
            self._socket.bind(path)
            self._path.chmod(0o660)  # the mode is set before listen, when nobody can connect yet
            self._socket.listen(1)
        except OSError as error:
            self._socket.close()
            raise ConfigurationError(f"cannot listen on {path}: {error}") from error

    def accept(self, timeout: float, should_stop: ShouldStop) -> socket.socket:
        """Wait until the grader container connects, and return the connection. Then stop listening.

        Raises GraderLost after ``timeout`` seconds without a connection. Raises Preempted if ``should_stop``
        returns True.
        """
        deadline = time.monotonic() + timeout
        self._socket.settimeout(_POLL_SECONDS)
        while True:
            try:
                connection, _ = self._socket.accept()
                break
            except TimeoutError:
                if should_stop():
                    raise Preempted("asked to stop while the run waited for the grader container") from None
                if time.monotonic() >= deadline:
                    raise GraderLost(f"the grader container did not connect within {timeout:g} s") from None
        self.close()
        return connection

    def close(self) -> None:
        """Stop listening and remove the socket file."""
        self._socket.close()
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


class Inbox:
    """A queue of requests that one thread sends to a grader process. Any thread can add requests. The sending
    thread can wait for them with ``select``, because the queue has a file descriptor.
    """

    def __init__(self) -> None:
        """Create an empty queue of requests."""
        self.sent: dict[str, Future[Graded]] = {}
        """The futures of the requests that were sent and have no reply yet, by the id of the request."""
        self.ended = False
        """Whether ``close`` was called, and ``next`` has returned all requests."""
        self._queue: queue.SimpleQueue[tuple[GradeRequest, Future[Graded]] | None] = queue.SimpleQueue()
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        self._woken.setblocking(False)

    def put(self, request: GradeRequest) -> "Future[Graded]":
        """Add a request to the queue. Return a future for its reply."""
        future: Future[Graded] = Future()
        self._queue.put((request, future))
        self._signal()
        return future

    def close(self) -> None:
        """Mark the end of the queue. Do not call ``put`` afterwards. Requests in the queue are still sent."""
        self._queue.put(None)
        self._signal()

    def next(self) -> "tuple[GradeRequest, Future[Graded]] | None":
        """Take the next request from the queue, and return it with its future.

        Return None if the queue is empty now, or if its end is reached. In the second case ``ended`` is True.
        """
        try:
            entry = self._queue.get_nowait()
        except queue.Empty:
            return None
        self.ended = entry is None
        return entry

    def unanswered(self) -> "list[Future[Graded]]":
        """Return the futures of all requests that have no reply yet, whether they were sent or not.

        Requests that were not sent are taken out of the queue, so that they are never sent.
        """
        found = list(self.sent.values())
        while (entry := self.next()) is not None:
            found.append(entry[1])
        return found

    def fileno(self) -> int:
        """Return the file descriptor that becomes readable when a request is put into the queue."""
        return self._woken.fileno()

    def awake(self) -> None:
        """Make the descriptor of ``fileno`` unreadable again, so that ``select`` waits for the next
        request.
        """
        with contextlib.suppress(BlockingIOError):
            while self._woken.recv(4096):
                pass

    def _signal(self) -> None:
        with contextlib.suppress(BlockingIOError):  # the buffer is full, so ``select`` returns anyway
            self._wake.send(b"x")

    def release(self) -> None:
        """Close the two sockets with which ``put`` wakes the thread that waits in ``select``."""
        self._wake.close()
        self._woken.close()


class GraderClient:
    """The trainer's end of the connection to a grader process."""

    def __init__(self, connection: socket.socket, max_silence: float) -> None:
        """Use ``connection``, an open connection to the grader process.

        The other methods raise GraderLost if no message comes for ``max_silence`` seconds.
        """
        self._connection = connection
        self._reader = LineReader(connection, MAX_REPLY_BYTES)
        self._max_silence = max_silence
        self._ids = RequestIds()
        self._abandoned: set[str] = set()
        """Ids of requests without a reply, from calls of ``exchange`` or ``converse`` that have ended. Late
        replies to them are ignored.
        """

    def hello(self, should_stop: ShouldStop) -> dict[str, str | None]:
        """Wait for the first message of the grader process, which says which graders could be loaded.

        Return the error message for each grader, by its name. None: the grader is loaded. Raises GraderLost
        if the grader process is lost, and Preempted if ``should_stop`` returns True.
        """
        graders = self._read(should_stop).get("graders")
        if not isinstance(graders, dict):
            raise GraderLost("the first message of the grader process does not have the key graders")
        return {
            str(name): None if problem is None else str(problem)[:MAX_ERROR_CHARACTERS]
            for name, problem in graders.items()
        }

    def exchange(
        self, requests: Sequence[GradeRequest], outcomes: dict[int, Graded], should_stop: ShouldStop
    ) -> None:
        """Send the requests, and wait for all replies. Store each reply in ``outcomes``, under the request's
        index in ``requests``.

        Late replies to requests of an earlier call are ignored.

        Raises GraderLost if the grader process is lost. Also raises GraderLost if a reply has an id that no
        request has: then another process uses the connection. Raises Preempted if ``should_stop`` returns
        True. After each of these errors ``outcomes`` has the replies received so far.
        """
        waiting: dict[str, int] = {}
        try:
            self._exchange(requests, waiting, outcomes, should_stop)
        finally:
            self._abandoned.update(waiting)

    def converse(self, inbox: Inbox, should_stop: ShouldStop) -> None:
        """Send each request that is put into the inbox. Set the request's future when its reply arrives.

        Return when the inbox is closed and every request has its reply. Raises GraderLost and Preempted like
        ``exchange``. After such an error ``inbox.sent`` has the requests that were sent and have no reply.
        """
        heard, longest = time.monotonic(), 0.0
        try:
            while True:
                while len(inbox.sent) < _LARGEST_CONCURRENCY and (entry := inbox.next()) is not None:
                    request, future = entry
                    try:
                        line = encode(request.message(number := self._ids.next()))
                    except (ValueError, TypeError, RecursionError) as error:
                        future.set_result(Graded(ValueError(f"the request cannot be sent as JSON: {error}")))
                        continue
                    if len(line) > MAX_REQUEST_BYTES:
                        future.set_result(_too_large())
                        continue
                    if not inbox.sent:
                        heard = time.monotonic()
                    inbox.sent[number] = future
                    longest = max(longest, request.seconds or 0.0)
                    self._send(line)
                if inbox.ended and not inbox.sent:
                    return
                if should_stop():
                    raise Preempted("asked to stop while environments were running")
                arrived = self._reader.has_read_more
                if not arrived:
                    both = [self._connection.fileno(), inbox.fileno()]
                    ready, _, _ = select.select(both, [], [], _POLL_SECONDS)
                    arrived = both[0] in ready
                inbox.awake()
                if arrived and self._hand_over(inbox.sent):
                    heard = time.monotonic()
                elif inbox.sent and time.monotonic() - heard > self._max_silence + longest:
                    raise GraderLost(f"the grader process sent nothing for {self._max_silence + longest:g} s")
        finally:
            self._abandoned.update(inbox.sent)

    def _hand_over(self, sent: "dict[str, Future[Graded]]") -> bool:
        """Read one reply, and give it to the future of its request.

        ``sent`` has the futures of the requests without a reply, by the id of the request. Return False if no
        complete reply arrives within ``_REST_SECONDS``, else True.
        """
        try:
            reply = self._received(_REST_SECONDS)
        except TimeoutError:
            return False
        number = self._checked(reply, sent)
        if number is not None:
            sent.pop(number).set_result(_graded(reply))
        return True

    def close(self) -> None:
        """Close the connection. The grader process then ends."""
        self._connection.close()

    def _exchange(
        self,
        requests: Sequence[GradeRequest],
        waiting: dict[str, int],
        outcomes: dict[int, Graded],
        should_stop: ShouldStop,
    ) -> None:
        for index, request in enumerate(requests):
            number = self._ids.next()
            line = encode(request.message(number))
            if len(line) > MAX_REQUEST_BYTES:
                outcomes[index] = _too_large()
                continue
            while len(waiting) >= WINDOW:
                self._take(waiting, outcomes, should_stop)
            waiting[number] = index
            self._send(line)
        while waiting:
            self._take(waiting, outcomes, should_stop)

    def _send(self, line: bytes) -> None:
        try:
            self._connection.settimeout(self._max_silence)
            self._connection.sendall(line)
        except OSError as error:
            raise GraderLost("the grader process closed the connection") from error

    def _take(self, waiting: dict[str, int], outcomes: dict[int, Graded], should_stop: ShouldStop) -> None:
        reply = self._read(should_stop)
        number = self._checked(reply, waiting)
        if number is not None:
            outcomes[waiting.pop(number)] = _graded(reply)

    def _checked(self, reply: dict[str, Any], waiting: Container[str]) -> str | None:
        """Return the id of the request to which a reply belongs. ``waiting`` has the ids of the requests
        without a reply.

        Return None if the reply belongs to a request of an earlier call of ``exchange`` or ``converse``.
        Raises GraderLost if it belongs to no request.
        """
        number = reply.get("id")
        if not isinstance(number, str) or (number not in waiting and number not in self._abandoned):
            raise GraderLost("the grader process sent a forged reply: its id belongs to no open request")
        if number in self._abandoned:
            self._abandoned.remove(number)
            return None
        return number

    def _read(self, should_stop: ShouldStop) -> dict[str, Any]:
        deadline = time.monotonic() + self._max_silence
        while True:
            try:
                return self._received(_POLL_SECONDS)
            except TimeoutError:
                if should_stop():
                    raise Preempted("asked to stop while graders were running") from None
                if time.monotonic() >= deadline:
                    raise GraderLost(f"the grader process sent nothing for {self._max_silence:g} s") from None

    def _received(self, timeout: float) -> dict[str, Any]:
        """Return the next message of the grader process.

        Raises TimeoutError after ``timeout`` seconds. Raises GraderLost if the grader process has closed the
        connection, or has sent an invalid message.
        """
        try:
            return self._reader.read(timeout)
        except Closed:
            raise GraderLost("the grader process closed the connection") from None
        except ProtocolError as error:
            raise GraderLost(f"the grader process sent {error}") from error


def _too_large() -> Graded:
    return Graded(ValueError(f"row and completion together are larger than {MAX_REQUEST_BYTES} bytes"))


def _graded(reply: dict[str, Any]) -> Graded:
    printed, forged, value = reply.get("printed"), reply.get("forged"), reply.get("value")
    return Graded(
        _outcome(reply),
        printed if isinstance(printed, str) else "",
        forged if isinstance(forged, int) and forged > 0 else 0,
        value if isinstance(value, dict) else None,
    )


def _outcome(reply: dict[str, Any]) -> Outcome:
    score, error = reply.get("score"), reply.get("error")
    if isinstance(score, bool | int | float):
        return float(score) if abs(score) < 1e300 else ValueError("the score is not finite")
    if isinstance(error, str):
        return ValueError(error[:MAX_ERROR_CHARACTERS])
    return ValueError("the grader process sent no score")
