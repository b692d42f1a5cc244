"""JSON lines over a stream socket, with a limit on the length of a line.

Not pickle, because unpickling data from users' code could run any code in the trainer.

serve -> trainer   {"graders": {NAME: null | "why it does not load"}}    once
trainer -> serve   {"id": 7, "grader": NAME, "completion": "…", "row": {…}}   "tokens": […] where known
serve -> trainer   {"id": 7, "score": 0.5}  or  {"id": 7, "error": "…"}       in any order; "printed": "…"
"""

import json
import socket
import time
from typing import Any

MAX_REQUEST_BYTES = 8 * 1024 * 1024
MAX_REPLY_BYTES = 64 * 1024
MAX_ERROR_CHARACTERS = 500


class ProtocolError(Exception):
    """The peer sent an invalid line."""


class Closed(Exception):
    """The peer closed the connection."""


def encode(message: dict[str, Any]) -> bytes:
    """Return a message as one line; JSON text never contains a newline character."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


class LineReader:
    """Reads JSON objects from a socket, one a line."""

    def __init__(self, connection: socket.socket, max_bytes: int) -> None:
        """Lines longer than ``max_bytes`` raise ProtocolError."""
        self._connection = connection
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        self._searched = 0

    def read(self, timeout: float | None) -> dict[str, Any]:
        """Return the next object.

        Raises TimeoutError when there is no complete line after ``timeout`` seconds (a part of a line is kept
        for the next call), Closed, or ProtocolError.
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

    def _receive(self, deadline: float | None) -> None:
        """Append received bytes. Raises TimeoutError at the deadline, Closed at the end of the stream."""
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
        raise ProtocolError("a line is not JSON") from error
    if not isinstance(value, dict):
        raise ProtocolError("a line is not a JSON object")
    return value
