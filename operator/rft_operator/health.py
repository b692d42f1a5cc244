"""The liveness probe and the readiness probe, answered in a thread of their own.

A process is ready while it waits for the Lease, the lock of the leader election. It is also ready while it
holds the Lease and has started its workers and the ingest. So the second operator of a Deployment, which only
waits for the Lease, counts as available.

A process is alive if its event loop runs and none of its watches is dead. The API server ends every watch
after ``watch_seconds``, and kopf connects again. So even a watch without events gets answers. A watch is dead
if it has got no answer for ``stale_seconds``.

A watch that the API server refuses is not dead. kopf tries it again and again, and a new process would be
refused too. A metric and the log show the refusal.

While the API server is down, no watch can connect. Then the process loses the Lease within seconds, and ends
itself. The liveness probe must not end it earlier. So ``stale_seconds`` must be longer than the duration of
the Lease. It should also be longer than kopf's ``client_timeout``, after which kopf closes the connection of
a watch and connects again.
"""

import logging
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from rft_operator import metrics, threads
from rft_operator.lease import clock

READY_PATH = "/readyz"
"""Path of the readiness probe. Every other path is the liveness probe."""
LOOP_SECONDS = 30.0
"""Longest time in seconds for which the event loop may be blocked before the liveness probe fails."""
_log = logging.getLogger(__name__)


class Signs:
    """The data for the probes: when the event loop last ran, when each watch last got an answer, and whether
    the process is ready.

    The event loop writes these times, and the threads of the probes read them.
    """

    def __init__(self, stale_seconds: float, now: Callable[[], float] = clock) -> None:
        """``stale_seconds``: a watch without an answer for this time counts as dead."""
        self._stale_seconds = stale_seconds
        self._now = now
        self._loop: float | None = None
        self._connected: dict[str, float] = {}
        self._answered: dict[str, float] = {}
        self._refusals: dict[str, str] = {}
        self.ready = False
        """Whether the readiness probe succeeds: this process waits for the Lease, or holds it and has started
        its workers and the ingest."""
        metrics.WATCH_SILENCE.set_function(self._silence)

    def expect(self, paths: Iterable[str]) -> None:
        """Set the URL paths of the expected watches. A watch counts as dead if it gets no answer within
        ``stale_seconds`` from now.
        """
        self._connected = dict.fromkeys(paths, self._now())
        self._answered = dict(self._connected)
        for path in self._connected:
            metrics.WATCH_REFUSED.labels(path).set(0)

    def loop_turned(self) -> None:
        """Record that the event loop runs."""
        self._loop = self._now()

    def connected(self, path: str) -> None:
        """Record that the API server accepted the watch of ``path``."""
        if path not in self._connected:
            return
        self._connected[path] = self._answered[path] = self._now()
        if self._refusals.pop(path, ""):
            metrics.WATCH_REFUSED.labels(path).set(0)
            _log.info("the watch of %s is accepted again", path)

    def refused(self, path: str, why: str) -> None:
        """Record that the API server refused to list or watch ``path``, or that the connection failed.

        ``why`` is the reason, for the log.
        """
        if path not in self._connected:
            return
        self._answered[path] = self._now()
        if self._refusals.get(path) != why:
            metrics.WATCH_REFUSED.labels(path).set(1)
            _log.warning(
                "the watch of %s is refused, so changes there are seen late; the operator tries again: %s",
                path,
                why,
            )
        self._refusals[path] = why

    def complaints(self) -> list[str]:
        """Return a message for each dead watch, and a message if the event loop is blocked."""
        now = self._now()
        silent = {path: now - since for path, since in sorted(self._answered.items())}
        found = [
            f"the watch of {path} is dead: no answer for {seconds:.0f} s"
            for path, seconds in silent.items()
            if seconds > self._stale_seconds
        ]
        if self._loop is not None and now - self._loop > LOOP_SECONDS:
            found.append(f"the event loop is blocked for {now - self._loop:.0f} s")
        return found

    def _silence(self) -> float:
        return max((self._now() - since for since in self._connected.values()), default=0.0)


def serve(signs: Signs, port: int) -> ThreadingHTTPServer:
    """Serve the probes on ``port``. The answer is 200, or 500 with a text that says what is wrong.

    Raises CannotListen as ``listening`` does.
    """

    class Probe(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == READY_PATH:
                complaints = (
                    [] if signs.ready else ["not ready: this process does not wait for the Lease yet"]
                )
            else:
                complaints = signs.complaints()
                for complaint in complaints:
                    _log.error("not alive: %s", complaint)
            body = "\n".join(complaints or ["ok"]).encode()
            self.send_response(500 if complaints else 200)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Write nothing to the log, because requests of probes are frequent."""

    return threads.serve(Probe, port, "health", "RFT_HEALTH_PORT")
