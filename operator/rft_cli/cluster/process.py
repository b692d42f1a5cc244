"""Exchanges data with a command that runs in a container of a pod, as ``kubectl exec`` does, over a WebSocket
of the API server.

The Python client of Kubernetes has a reader for such WebSockets, but it is not used here. Before each
message, that reader waits until the socket has data. If the message is already in the buffer of TLS, that
reader may wait for ever.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from websocket import ABNF, WebSocketException

from rft_cli.errors import INVALID, UserError

STDIN, STDOUT, STDERR, VERDICT = range(4)
"""Numbers of the channels in a WebSocket to a command. The first byte of each message is the number of its
channel.

The message on ``VERDICT`` comes at the end, and says whether the command succeeded.
"""
CLOSED = 255
"""Number of the channel for messages that another channel is closed. Such messages are ignored."""
SILENCE_SECONDS = 120.0
"""Number of seconds without any data after which the connection counts as lost."""
LINE_BYTES = 1 << 16
_MESSAGE_BYTES = 1 << 14
_KEPT_BYTES = 4096
_HANDSHAKE = re.compile(r"Handshake status (\d+)")


class Unreachable(UserError):
    """The API server does not answer or has a temporary error, or the connection to a pod was lost. A new
    attempt may succeed.
    """


def handshake_status(said: str) -> int | None:
    """Return the HTTP status, such as 403, with which the API server refused to open a WebSocket.

    ``said`` is the error message of the WebSocket client. Return None if it has no HTTP status.
    """
    found = _HANDSHAKE.search(said)
    return int(found[1]) if found else None


class PodProcess:
    """A connection to a command that runs in a container of a pod.

    Callers write to the command's standard input, and read its standard output by line or by number of bytes.
    """

    def __init__(self, socket: Any) -> None:
        """Use ``socket``, a ``websocket.WebSocket`` that is connected to the command already."""
        self._socket = socket
        self._socket.settimeout(SILENCE_SECONDS)
        self._output = self._chunks()
        self._rest = b""

    def write(self, data: bytes) -> None:
        """Write ``data`` to the command's standard input. Raises Unreachable if the connection is lost."""
        try:
            for begin in range(0, len(data), _MESSAGE_BYTES):
                message = bytes([STDIN]) + data[begin : begin + _MESSAGE_BYTES]
                self._socket.send(message, opcode=ABNF.OPCODE_BINARY)
        except (WebSocketException, OSError) as error:
            raise _lost(error) from error

    def lines(self) -> Iterator[bytes]:
        """Yield each line of the command's standard output with its line end, until the command has ended.

        Raises Unreachable if the connection is lost, and UserError if the command fails or a line is longer
        than ``LINE_BYTES`` bytes.
        """
        while line := self.line():
            yield line

    def line(self) -> bytes:
        """Return the next line of the command's standard output with its line end. Return b"" after the last
        line.

        Raises Unreachable if the connection is lost, and UserError if the command fails or the line is longer
        than ``LINE_BYTES`` bytes.
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
        """Return exactly the next ``number`` bytes of the command's standard output.

        Raises UserError if the output ends before or the command fails, and Unreachable if the connection is
        lost.
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
        """Close the connection to the command. A command that still runs ends when it next writes output."""
        self._socket.close(timeout=1)
        self._socket.shutdown()  # needed if the server has closed the connection: then ``close`` does nothing

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
    """Return the reason why a command in a pod failed, or None if it succeeded.

    - ``verdict``: the Status object about the command that the API server sends at the end, as JSON
    - ``said``: the last bytes of the command's standard error
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
