"""Exchanges data with a command in a container of a pod, over a WebSocket of the API server.

The Python client of Kubernetes can read such WebSockets, but its reader is not used here. Before each
message, that reader waits until the socket has data. If the message is already in the buffer of TLS, the
reader may wait for ever.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from websocket import ABNF, WebSocketException

from rft_cli.errors import INVALID, UserError

STDIN, STDOUT, STDERR, VERDICT = range(4)
"""The channels of a command's WebSocket. The first byte of each message is the number of its channel.

The message on ``VERDICT`` comes at the end, and says whether the command succeeded.
"""
CLOSED = 255
"""The channel of messages that say that one of the other channels is closed. They are ignored."""
SILENCE_SECONDS = 120.0
"""The connection counts as lost if nothing arrives for this number of seconds."""
LINE_BYTES = 1 << 16
_MESSAGE_BYTES = 1 << 14
_KEPT_BYTES = 4096
_HANDSHAKE = re.compile(r"Handshake status (\d+)")


class Unreachable(UserError):
    """The API server does not answer or has a temporary error, or the connection to a pod was lost."""


def handshake_status(said: str) -> int | None:
    """Return the HTTP status with which the API server refused to open a WebSocket, or None if ``said`` has
    none. ``said`` is the error message of the WebSocket client.
    """
    found = _HANDSHAKE.search(said)
    return int(found[1]) if found else None


class PodProcess:
    """A command that runs in a container. Callers read its output by line, or by number of bytes."""

    def __init__(self, socket: Any) -> None:
        """``socket`` is a connected ``websocket.WebSocket``."""
        self._socket = socket
        self._socket.settimeout(SILENCE_SECONDS)
        self._output = self._chunks()
        self._rest = b""

    def write(self, data: bytes) -> None:
        """Write to the standard input of the command. Raises Unreachable if the connection is lost."""
        try:
            for begin in range(0, len(data), _MESSAGE_BYTES):
                message = bytes([STDIN]) + data[begin : begin + _MESSAGE_BYTES]
                self._socket.send(message, opcode=ABNF.OPCODE_BINARY)
        except (WebSocketException, OSError) as error:
            raise _lost(error) from error

    def lines(self) -> Iterator[bytes]:
        """Yield each line of the output, until the command has ended. Raises the same errors as ``line``."""
        while line := self.line():
            yield line

    def line(self) -> bytes:
        """Return the next line of the output with its line end, or b"" after the last one.

        Raises Unreachable if the connection is lost, and UserError if the command fails or the line is longer
        than ``LINE_BYTES``.
        """
        while (end := self._rest.find(b"\n")) < 0:
            if len(self._rest) > LINE_BYTES:
                raise UserError(f"a line of the pod's answer is longer than {LINE_BYTES:,} bytes", INVALID)
            if not (chunk := next(self._output, b"")):
                end = len(self._rest) - 1
                break
            self._rest += chunk
        line, self._rest = self._rest[: end + 1], self._rest[end + 1 :]
        return line

    def take(self, number: int) -> bytes:
        """Return exactly ``number`` bytes of the output.

        Raises UserError if the output has fewer bytes, and the same errors as ``line``.
        """
        parts, missing = [self._rest], number - len(self._rest)
        while missing > 0:
            if not (chunk := next(self._output, b"")):
                raise UserError("the pod's answer ended in the middle of a file", INVALID)
            parts.append(chunk)
            missing -= len(chunk)
        all_of_it = b"".join(parts)
        self._rest = all_of_it[number:]
        return all_of_it[:number]

    def close(self) -> None:
        """Close the connection. The command ends at its next write."""
        self._socket.close(timeout=1)
        self._socket.shutdown()  # ``close`` does nothing if the server has closed the connection before

    def _chunks(self) -> Iterator[bytes]:
        """Yield the pieces of the command's standard output as they arrive, until the command has ended.

        Raises UserError if the command failed, and Unreachable if the connection is lost before it ended.
        """
        said, verdict = b"", b""
        try:
            while True:
                opcode, frame = self._socket.recv_data_frame(control_frame=True)
                if opcode == ABNF.OPCODE_CLOSE:
                    break
                if opcode not in (ABNF.OPCODE_BINARY, ABNF.OPCODE_TEXT) or not frame.data:
                    continue
                channel, data = frame.data[0], bytes(frame.data[1:])
                if channel == STDOUT and data:
                    yield data
                elif channel == STDERR:
                    said = (said + data)[-_KEPT_BYTES:]
                elif channel == VERDICT:
                    verdict += data
        except (WebSocketException, OSError) as error:
            if not verdict:
                raise _lost(error) from error
        if not verdict:
            raise _lost(None)
        if problem := failure(verdict, said):
            raise UserError(f"the command in the pod failed: {problem}", INVALID)


def failure(verdict: bytes, said: bytes) -> str | None:
    """Return why a command failed, or None if it succeeded.

    - ``verdict``: the Status object that the API server sends at the end, as JSON
    - ``said``: the end of the command's standard error
    """
    try:
        status = json.loads(verdict)
    except ValueError:
        status = None
    if not isinstance(status, dict):
        return "the API server did not say how the command ended"
    if status.get("status") == "Success":
        return None
    last = said.decode(errors="replace").strip().splitlines()[-1:]
    return "; ".join([str(status.get("message", "the API server gives no reason")), *last])


def _lost(error: Exception | None) -> Unreachable:
    detail = f" ({type(error).__name__})" if error is not None else ""
    return Unreachable(f"the connection to the pod was lost{detail}; repeat the command to continue")
