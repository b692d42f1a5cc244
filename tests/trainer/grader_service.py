"""A fake grading service on this machine. It returns the responses that a test sets, and records requests."""

import contextlib
import http.server
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Answer:
    """A response of the service. ``body`` is a JSON value, bytes, or an iterator of parts to send."""

    body: Any = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Asked:
    """A request that the service received."""

    path: str
    headers: dict[str, str]
    body: Any


Respond = Callable[[Asked], Answer]


class Service:
    """The grading service. A handler can wait for the event ``released``, which ``close`` sets."""

    def __init__(self, respond: Respond, context: ssl.SSLContext | None = None) -> None:
        self.asked: list[Asked] = []
        self.released = threading.Event()
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                asked = Asked(self.path, dict(self.headers), json.loads(content))
                service.asked.append(asked)
                answer = respond(asked)
                with contextlib.suppress(OSError):  # the client closed the connection
                    self._send(answer)

            def _send(self, answer: Answer) -> None:
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.end_headers()  # HTTP/1.0: the end of the connection ends the body
                if isinstance(answer.body, Iterator):
                    for part in answer.body:
                        self.wfile.write(part)
                elif isinstance(answer.body, bytes):
                    self.wfile.write(answer.body)
                else:
                    self.wfile.write(json.dumps(answer.body).encode())

            def log_message(self, *_: object) -> None:
                """Do not log requests."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.port}/score"
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        """Stop the service."""
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextlib.contextmanager
def serving(respond: Respond, context: ssl.SSLContext | None = None) -> Iterator[Service]:
    """Run the service during the ``with`` block."""
    service = Service(respond, context)
    try:
        yield service
    finally:
        service.close()
