"""Sends calls from the trainer to the process of a tracking library, without blocking the trainer."""

import json
import logging
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

log = logging.getLogger(__name__)

QUEUE_LENGTH = 2000
"""Maximum number of tracking calls in the queue. If the queue is full, further calls are dropped and
counted."""

_STDERR = 2


class Sender:
    """Sends calls through a pipe to one tracking process, which runs the library of one backend.

    The calls wait in a queue of limited length, and a thread writes them into the pipe. So the trainer never
    waits for the pipe. No method raises an error.
    """

    def __init__(self, backend: str, command: Sequence[str] | None = None) -> None:
        """Start the tracking process of ``backend``, such as ``mlflow``.

        ``command`` replaces the usual command of the process, for tests only.
        """
        self.backend = backend
        self.dropped = 0
        self._queue: queue.Queue[str | None] = queue.Queue(QUEUE_LENGTH)
        self._process: subprocess.Popen[str] | None = None
        try:
            self._process = subprocess.Popen(
                command or (sys.executable, "-m", "rft_trainer.monitors.tracking.worker", backend),
                stdin=subprocess.PIPE,
                # The trainer's standard output is only for its JSON lines.
                stdout=_STDERR,
                text=True,
            )
        except OSError as error:
            log.warning("tracking: the process of %s does not start: %s; the run continues", backend, error)
        self._thread = threading.Thread(target=self._write, args=(self._process,), daemon=True)
        self._thread.start()

    def send(self, call: str, arguments: dict[str, Any]) -> None:
        """Put a call into the queue for the tracking process. If the queue is full, drop and count the call.

        ``call``: the name of the method of ``Tracker``. ``arguments``: its arguments as JSON values.
        """
        try:
            self._queue.put_nowait(json.dumps([call, arguments]) + "\n")
        except queue.Full:
            self.dropped += 1

    def close(self, seconds: float) -> bool:
        """Wait at most ``seconds`` until the tracking process has made all queued calls and has ended.

        If the process has not ended by then, kill it. Return whether the process ended in time and with exit
        code 0.
        """
        deadline = time.monotonic() + seconds
        try:
            self._queue.put(None, timeout=seconds)
        except queue.Full:
            self.dropped += 1
        process = self._process
        ended = process is not None and self._ended(process, deadline)
        if process is not None and not ended:
            log.warning("tracking: %s did not finish within %.0f s and was killed", self.backend, seconds)
            self.kill()
        if self.dropped:
            said = "tracking: %s lacks the data of %d calls, which were dropped; metrics.jsonl has all steps"
            log.warning(said, self.backend, self.dropped)
        return ended and process is not None and process.returncode == 0

    def kill(self) -> None:
        """Kill the tracking process. If it has not closed the run, the backend shows the run as open."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _ended(self, process: subprocess.Popen[str], deadline: float) -> bool:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return False
        return True

    def _write(self, process: subprocess.Popen[str] | None) -> None:
        """Write the queued calls into the pipe of the tracking process until ``close`` is called.

        This method is the thread. If the process has ended, drop and count the calls.
        """
        broken = process is None
        while (line := self._queue.get()) is not None:
            if broken or process is None or process.stdin is None:
                self.dropped += 1
                continue
            try:
                process.stdin.write(line)
                process.stdin.flush()
            except (OSError, ValueError):
                broken = True
                self.dropped += 1
                log.warning("tracking: the process of %s ended; the run continues without it", self.backend)
        if process is not None and process.stdin is not None:
            try:
                process.stdin.close()
            except OSError:
                log.debug("tracking: the pipe to the process of %s was already broken", self.backend)
