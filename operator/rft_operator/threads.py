"""An HTTP server for the probes and the metrics, with one thread for each connection.

It must answer even while the event loop is blocked, so it does not run in the event loop.
"""

import socket
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from rft_operator.listening import EVERYWHERE, listening

CONNECTIONS = 32
"""Largest number of open connections. If one more is opened, the server closes the oldest one. A probe or a
scrape of the metrics takes only milliseconds, so the oldest connection is probably not needed any more."""
SILENCE_SECONDS = 10.0
"""Seconds without a received byte after which a connection is closed."""


class FewConnections(ThreadingHTTPServer):
    """An HTTP server with a thread for each connection, and at most ``CONNECTIONS`` connections."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, handler: type[BaseHTTPRequestHandler], setting: str) -> None:
        self._open: dict[socket.socket, None] = {}
        self._lock = threading.Lock()
        super().__init__(("", port), handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening(EVERYWHERE, port, setting, self.request_queue_size)
        self.server_address = self.socket.getsockname()
        self.server_port = self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer a connection in a thread. If too many connections are open, close the oldest one."""
        request.settimeout(SILENCE_SECONDS)
        with self._lock:
            self._open[request] = None
            oldest = next(iter(self._open)) if len(self._open) > CONNECTIONS else None
            if oldest is not None:
                del self._open[oldest]
        if oldest is not None:
            # This ends the thread of the connection, because it then reads the end of the stream.
            with suppress(OSError):
                oldest.shutdown(socket.SHUT_RDWR)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Remove an ended connection from the list of open connections."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log why a request failed. Do not log it if the client closed the connection or sent nothing."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def serve(
    handler: type[BaseHTTPRequestHandler], port: int, name: str, setting: str = "the port"
) -> FewConnections:
    """Serve HTTP on ``port`` in a thread until the process ends. Return the server.

    - ``handler``: the class whose instances answer the connections.
    - ``name``: the name of the thread.
    - ``setting``: the name of the setting with the port, for an error message.

    Raises CannotListen as ``listening`` does.
    """
    server = FewConnections(port, handler, setting)
    threading.Thread(target=server.serve_forever, name=name, daemon=True).start()
    return server
