"""Reports the run's progress to the operator. A failed report never stops or delays the training.

Each report has the whole status, so only the newest one matters. A background thread sends at most one report
per interval. If a report is lost, the next report has all of its content.
"""

import json
import logging
import os
import ssl
import threading
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from pydantic import ValidationError

from rft_api.lifecycle import Stop
from rft_api.status import RunStatus
from rft_run import wire
from rft_run.config import ReportTarget, RunConfig
from rft_run.errors import Fenced
from rft_run.exit_codes import ExitCode
from rft_run.report import MAX_REPORT_BYTES, Ending, ProgressReport, ReportAnswer
from rft_trainer.monitors.local_status import LocalStatus

log = logging.getLogger(__name__)

TERMINATION_LOG = "/dev/termination-log"
LAST_REPORT_SECONDS = 60.0
"""Maximum time in seconds to send the last report of an attempt, retries included."""

PREEMPTED_REPORT_SECONDS = 5.0
"""Maximum time in seconds to send the last report of an attempt that was asked to stop.

It is short, because a drain or the notice of a spot machine leaves little time. If the report is not sent,
the operator reads the pod's termination message, which is a shorter form of the report.
"""

_REQUEST_SECONDS = 10.0
_MAX_BACKOFF_SECONDS = 30.0
_REFUSED = (400, 410, 413, 422)
"""HTTP statuses after which a report is not sent again, because the answer would be the same."""


def fitted(report: ProgressReport) -> bytes:
    """Return the report as JSON of at most ``MAX_REPORT_BYTES``.

    Parts are left out, in this order, until the report fits:

    - the graders' curves, which are long for many graders
    - the advice
    - the rewards
    - the evaluation
    - the metrics
    - the outputs
    """
    body = report.for_cluster()
    if len(_as_json(body)) > MAX_REPORT_BYTES:
        for point in body["run"].get("reward", {}).get("history", ()):
            point.pop("graders", None)
    for shorten in ("recommendations", "reward", "evaluation", "metrics", "output"):
        if len(_as_json(body)) <= MAX_REPORT_BYTES:
            break
        body["run"].pop(shorten, None)
    return _as_json(body)


def _as_json(body: dict[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":"), allow_nan=False).encode()


def trust(ca: Path) -> ssl.SSLContext:
    """Return a TLS context that trusts the CA certificates in a file, or in all files of a folder.

    Raises OSError and ssl.SSLError for a file that cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    files = sorted(f for f in ca.iterdir() if f.is_file()) if ca.is_dir() else [ca]
    for file in files:
        context.load_verify_locations(cafile=str(file))
    return context


def post(target: ReportTarget, body: bytes) -> tuple[int, bytes]:
    """Send one report. Return the HTTP status and the body of the response.

    The CA and the token are read from their files each time, because both are renewed during a run. Raises
    OSError, ssl.SSLError, httpx.HTTPError.
    """
    token = Path(target.token_file).read_text(encoding="ascii").strip()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    # Proxies of the environment are ignored: the operator is inside the cluster.
    with httpx.Client(
        verify=trust(Path(target.ca_file)), timeout=_REQUEST_SECONDS, trust_env=False
    ) as client:
        answer = client.post(target.url, content=body, headers=headers)
        return answer.status_code, answer.content


def backoff(failures: int, interval: float) -> float:
    """Return the seconds to wait for the next report after a number of consecutive failures.

    ``interval``: the seconds between reports without failures.
    """
    # The exponent is bounded, because 2.0 ** 1024 overflows.
    return min(interval * 2.0 ** min(failures, 16), _MAX_BACKOFF_SECONDS)


class Reporter:
    """Sends the newest status to the operator, and writes the termination message and the local status file.

    It is a context manager. On exit it calls ``close``, which waits for the delivery of the
    last report.
    """

    def __init__(self, config: RunConfig, *, local_status: bool | None = None, interval: float = 1.0) -> None:
        """Prepare. Nothing is sent yet.

        - ``local_status``: whether to write ``status.yaml``. None: write it only if no operator gets the
          reports.
        - ``interval``: the minimum number of seconds between two reports.
        """
        self._target = config.report
        self._interval = interval
        self._attempt = os.environ.get("RFT_POD_UID") or str(uuid.uuid4())
        self._termination = _termination_log()
        write_status = config.report is None if local_status is None else local_status
        self._local = LocalStatus(config) if write_status else None
        self._sequence = 0
        self._changed = threading.Condition()
        self._newest: ProgressReport | None = None
        self._sent = -1
        self._fenced = False
        self._stop: Stop | None = None
        self._closing_at: float | None = None
        self._complaints: set[str] = set()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Return the reporter itself. Its thread starts with the first report."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait until the last report is delivered, for a limited time. See ``close``."""
        self.close()

    @property
    def attempt(self) -> str:
        """The id of this attempt: the UID of its pod, or a random id for a local run."""
        return self._attempt

    @property
    def fenced(self) -> bool:
        """Whether the operator has answered that a newer attempt replaces this attempt."""
        return self._fenced

    @property
    def stop(self) -> Stop | None:
        """The newest ``spec.stop`` that the operator has sent; ``None`` if it has not sent one."""
        return self._stop

    def publish(self, run: RunStatus, *, ending: Ending | None = None, force: bool = False) -> None:
        """Send a status in the background, without waiting. ``force``: write the local status file at once.

        Raises Fenced if a newer attempt reports and there is no ``ending``. Raises no other error. An attempt
        that ends as fenced sends no report. It does not write the local status file either, because this file
        then belongs to the newer attempt.
        """
        if self._fenced and ending is None:
            raise Fenced("a newer attempt of this run reports to the operator")
        if ending is not None and ending.exit_code == ExitCode.FENCED:
            self._fenced = True
        with self._changed:
            self._sequence += 1
            report = ProgressReport(
                attempt=self._attempt,
                sequence=self._sequence,
                resumed_from_step=run.progress.resumed_from_step,
                run=run,
            ).model_copy(update={"ending": ending})
            self._newest = report
            self._changed.notify_all()
        if self._local is not None and not self._fenced:
            self._quietly("status.yaml", partial(self._local.write, run, ending, force=force))
        if self._termination is not None:
            self._quietly("the termination message", partial(self._write_termination, report))
        if self._target is not None and self._thread is None:
            self._thread = threading.Thread(target=self._run, args=(self._target,), daemon=True)
            self._thread.start()

    def close(self, timeout: float | None = None) -> bool:
        """Wait at most ``timeout`` seconds for the delivery of the newest report. Return whether it was
        delivered.

        If ``timeout`` is None, it is ``PREEMPTED_REPORT_SECONDS`` for an attempt that was asked to stop, else
        ``LAST_REPORT_SECONDS``. If the attempt was not asked to stop, a request that has begun may take
        ``_REQUEST_SECONDS`` more.
        """
        ending = self._newest.ending if self._newest is not None else None
        preempted = ending is not None and ending.exit_code == ExitCode.PREEMPTED
        if timeout is None:
            timeout = PREEMPTED_REPORT_SECONDS if preempted else LAST_REPORT_SECONDS
        with self._changed:
            if self._closing_at is None:
                self._closing_at = time.monotonic() + timeout
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout if preempted else timeout + _REQUEST_SECONDS)
        return self._target is None or self._newest is None or self._sent == self._newest.sequence

    def _run(self, target: ReportTarget) -> None:
        """Send reports until the reporter is closed. If several are waiting, send only the newest one."""
        failures = 0
        while (report := self._next()) is not None:
            started = time.monotonic()
            done = self._deliver(target, report)
            failures = 0 if done else failures + 1
            self._pause(started + backoff(failures, self._interval))

    def _next(self) -> ProgressReport | None:
        """Return the next report to send, and wait for it if there is none yet.

        Return None if nothing more is sent:

        - the attempt is fenced: a newer attempt has replaced it
        - the reporter is closed, and there is no new report
        - the time to close is over
        """
        with self._changed:
            while not self._fenced and (self._closing_at is None or time.monotonic() < self._closing_at):
                if self._newest is not None and self._newest.sequence > self._sent:
                    return self._newest
                if self._closing_at is not None:
                    return None
                self._changed.wait()
            return None

    def _pause(self, until: float) -> None:
        """Wait until ``time.monotonic()`` is ``until``. After ``close``, wait at most one interval."""
        earliest = min(until, time.monotonic() + self._interval)
        with self._changed:
            while (now := time.monotonic()) < until:
                last = self._closing_at is not None
                # After ``close`` there is no newer report. The last one is sent again once per interval.
                deadline = earliest if last else until
                if now >= deadline:
                    return
                self._changed.wait(deadline - now)

    def _deliver(self, target: ReportTarget, report: ProgressReport) -> bool:
        """Send one report. Return False if the report has to be sent again."""
        try:
            status, answer = post(target, fitted(report))
        except (OSError, ValueError, httpx.HTTPError, httpx.InvalidURL) as error:
            self._complain(type(error).__name__, f"the operator cannot be reached: {error}")
            return False
        if 200 <= status < 300:
            self._complaints.clear()
            self._hear(answer)
        elif status == httpx.codes.CONFLICT:
            log.error("a newer attempt of this run reports to the operator, so this attempt ends")
            self._fenced = True
        elif status in _REFUSED:
            self._complain(str(status), f"the operator refused a report with HTTP status {status}")
        else:
            self._complain(str(status), f"a report failed with HTTP status {status}; it is sent again")
            return False
        self._sent = report.sequence
        return True

    def _hear(self, answer: bytes) -> None:
        """Store the ``spec.stop`` in the operator's response. If the response is invalid, only log this."""
        try:
            said = wire.read(ReportAnswer, answer or b"{}")
        except ValidationError as error:
            self._complain("answer", f"the operator's answer is invalid: {error.errors()[0]['msg']}")
            return
        if said.stop is not None:
            self._stop = said.stop

    def _complain(self, kind: str, message: str) -> None:
        """Log a problem with reports, unless the same kind was logged since the last successful report."""
        if kind not in self._complaints:
            self._complaints.add(kind)
            log.warning("%s", message)

    def _write_termination(self, report: ProgressReport) -> None:
        """Write the termination message. The pod's status keeps the message after the end of the container.

        The message is written with every report, because a trainer that is killed could not write it at its
        end. The file is written in place, because the kubelet mounts this single file: it cannot be replaced
        by a rename.
        """
        assert self._termination is not None
        message = json.dumps(report.termination_message(), separators=(",", ":"), allow_nan=False)
        self._termination.write_text(message, encoding="utf-8")

    def _quietly(self, what: str, write: Callable[[], None]) -> None:
        """Call ``write``, which writes the file ``what``. A failure is only logged, and only once."""
        try:
            write()
        except (OSError, ValueError) as error:
            self._complain(what, f"{what} cannot be written: {error}")


def _termination_log() -> Path | None:
    """Return the path of the file for the termination message, or None outside a pod."""
    given = os.environ.get("RFT_TERMINATION_LOG")
    if given:
        return Path(given)
    path = Path(TERMINATION_LOG)
    return path if path.is_file() else None
