"""The liveness probe and the readiness probe, answered in a thread of their own.

A process is ready while it waits for the Lease, and again once it holds the Lease and serves the ingest. So
a Deployment with a spare operator is available.

The API server ends every watch after ``watch_seconds``, and kopf connects again. A watch that has not
connected for ``stale_seconds`` is dead, even if its resource has few events. While the API server is down, no
watch can connect, but this process loses the Lease within seconds and ends. So ``stale_seconds`` must be
longer than the duration of the Lease, and longer than the time after which kopf closes a silent connection.
"""

import logging
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import aiohttp

from rft_operator import metrics, threads
from rft_operator.lease import clock

READY_PATH = "/readyz"
"""Path of the readiness probe. Every other path is the liveness probe."""
LOOP_SECONDS = 30.0
"""Longest time in seconds for which the event loop may be blocked before the liveness probe fails."""
_log = logging.getLogger(__name__)


class Signs:
    """The times of the last sign of life of the event loop and of each watch.

    The event loop writes them, and the thread of the probe reads them.
    """

    def __init__(self, stale_seconds: float, now: Callable[[], float] = clock) -> None:
        """``stale_seconds``: a watch that has not connected for this time counts as dead."""
        self._stale_seconds = stale_seconds
        self._now = now
        self._loop: float | None = None
        self._watches: dict[str, float] = {}
        self.ready = False
        """Whether this process waits for the Lease, or serves the ingest."""
        metrics.WATCH_SILENCE.set_function(self._silence)

    def expect(self, paths: Iterable[str]) -> None:
        """Set the URL paths of the expected watches. A watch counts as dead if it does not connect within
        ``stale_seconds`` from now.
        """
        self._watches = dict.fromkeys(paths, self._now())

    def loop_turned(self) -> None:
        """Record that the event loop runs."""
        self._loop = self._now()

    def connected(self, path: str) -> None:
        """Record that the API server accepted the watch of ``path``."""
        if path in self._watches:
            self._watches[path] = self._now()

    def complaints(self) -> list[str]:
        """Return a message for each dead watch, and a message if the event loop is blocked."""
        now = self._now()
        silent = {path: now - since for path, since in sorted(self._watches.items())}
        found = [
            f"the watch of {path} is dead: not connected for {seconds:.0f} s"
            for path, seconds in silent.items()
            if seconds > self._stale_seconds
        ]
        if self._loop is not None and now - self._loop > LOOP_SECONDS:
            found.append(f"the event loop is blocked for {now - self._loop:.0f} s")
        return found

    def _silence(self) -> float:
        return max((self._now() - since for since in self._watches.values()), default=0.0)


def tracing(signs: Signs) -> aiohttp.TraceConfig:
    """Return a trace configuration for an aiohttp session, which records in ``signs`` each new watch."""
    trace = aiohttp.TraceConfig()

    async def answered(
        _session: aiohttp.ClientSession, _context: SimpleNamespace, request: aiohttp.TraceRequestEndParams
    ) -> None:
        # The response's headers have arrived; events follow for minutes.
        if request.url.query.get("watch") == "true" and request.response.status == 200:
            signs.connected(request.url.path)

    trace.on_request_end.append(answered)
    return trace


def serve(signs: Signs, port: int) -> ThreadingHTTPServer:
    """Answer the probes on ``port``: 200 if all is well, 500 with a text about what is not."""

    class Probe(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == READY_PATH:
                complaints = [] if signs.ready else ["starting: neither waiting for the Lease nor serving"]
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
