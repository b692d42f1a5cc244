"""Messages between the trainer and the grader process, which runs users' graders: JSON objects, one a line,
over a stream socket. The length of a line is limited.

Pickle is not used, because unpickling data from users' code could run any code in the trainer.

``serve`` is the grader process:

serve -> trainer   {"graders": {NAME: null | "why it does not load"}}    sent once
trainer -> serve   {"id": ID, "grader": NAME, "completion": "…", "row": {…}}   with "tokens": […] if known,
                   and "seconds": 60 if the time limit is not that of the grader
serve -> trainer   {"id": ID, "score": 0.5}  or  {"id": ID, "error": "…"}    in any order
                   may have "printed": "…", the text that users' code printed; "value": {…}, the result of
                   an environment's action; and "forged": 1, the number of refused replies to this request,
                   which the worker did not write

Between ``serve`` and each worker process the messages have the same form, but other ids. An id is a secret
and is used once, so that a reply can only come from the process that got the request.
"""

import fcntl
import json
import select
import socket
import termios
import time
from typing import Any

MAX_REQUEST_BYTES = 8 * 1024 * 1024
MAX_REPLY_BYTES = 96 * 1024
MAX_ERROR_CHARACTERS = 500


class ProtocolError(Exception):
    """The other process sent a line that is too long, or is not a JSON object."""


class Closed(Exception):
    """The other process closed the connection."""


def encode(message: dict[str, Any]) -> bytes:
    """Return a message as one line of JSON in UTF-8, with a newline only at its end."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


class LineReader:
    """Reads messages from a socket. Each message is one line with a JSON object."""

    def __init__(self, connection: socket.socket, max_bytes: int) -> None:
        """Create a reader for ``connection``. A line of more than ``max_bytes`` bytes is an error: then
        ``read`` raises ProtocolError.
        """
        self._connection = connection
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        self._searched = 0

    def read(self, timeout: float | None) -> dict[str, Any]:
        """Return the next JSON object from the socket.

        Raises:
            TimeoutError: if no complete line arrives within ``timeout`` seconds (None: no limit). The part of
                a line that has arrived is kept for the next call.
            Closed: if the other process has closed the connection.
            ProtocolError: if the line is too long, or is not a JSON object.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while (end := self._buffer.find(b"\n", self._searched)) < 0:
            self._searched = len(self._buffer)
            if self._searched > self._max_bytes:
                raise ProtocolError(f"a line of more than {self._max_bytes} bytes")
            self._receive(deadline)
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._searched = 0
        return _object(line)

    @property
    def has_read_more(self) -> bool:
        """Whether bytes that follow the last message of ``read`` were already read from the socket."""
        return bool(self._buffer)

    def has_more(self) -> bool:
        """Return whether bytes that follow the last message of ``read`` have arrived. They may still be
        unread in the socket. Do not wait.
        """
        return self.has_read_more or any(fcntl.ioctl(self._connection, termios.FIONREAD, b"\0\0\0\0"))

    def has_ended(self) -> bool:
        """Return whether the other process has closed the connection, and no byte is left to read."""
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        return bool(poll.poll(0)) and not self.has_more()  # readable without bytes: the end

    def _receive(self, deadline: float | None) -> None:
        """Wait for bytes from the socket, and add them to the buffer.

        Raises TimeoutError at ``deadline``, in seconds of the monotonic clock (None: no limit). Raises Closed
        if the other process has closed the connection.
        """
        remaining = None if deadline is None else deadline - time.monotonic()
        if remaining is not None and remaining <= 0:
            raise TimeoutError
        self._connection.settimeout(remaining)
        try:
            data = self._connection.recv(65536)
        except ConnectionError as error:
            raise Closed from error
        if not data:
            raise Closed
        self._buffer += data


def _object(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("a line that is not JSON") from error
    if not isinstance(value, dict):
        raise ProtocolError("a line that is not a JSON object")
    return value
