"""Reports the run's progress to the operator, by HTTP. A failed report never stops or delays the training.

Each report has the whole status, so only the newest one matters. A background thread sends at most one report
per interval. If a report is lost, the next report has the newest values of the same fields.
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
    """Return the report as JSON of at most ``MAX_REPORT_BYTES`` bytes.

    If it is longer, parts are left out in this order, until it is short enough:

    - the curve of each grader
    - the recommendations
    - the reward curve
    - the held-out evaluation
    - the metrics of the last step
    - the paths of the outputs
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
    """Return a TLS context that trusts only the CA certificates in ``ca``: a file, or a folder of files.

    Raises OSError and ssl.SSLError for a file that cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    files = sorted(f for f in ca.iterdir() if f.is_file()) if ca.is_dir() else [ca]
    for file in files:
        context.load_verify_locations(cafile=str(file))
    return context


def post(target: ReportTarget, body: bytes) -> tuple[int, bytes]:
    """Send one report to the operator, by HTTP POST. Return the HTTP status and the body of the response.

    ``target``: the operator's URL, and the files with its CA certificate and a bearer token. They are read
    each time, because both are renewed during a run. Raises OSError, ssl.SSLError, httpx.HTTPError.
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
    """Return the number of seconds between the starts of two reports.

    It doubles with each failure, up to ``_MAX_BACKOFF_SECONDS``.

    - ``failures``: the number of consecutive reports that failed.
    - ``interval``: the number of seconds without failures.
    """
    # The exponent is bounded, because 2.0 ** 1024 overflows.
    return min(interval * 2.0 ** min(failures, 16), _MAX_BACKOFF_SECONDS)


class Reporter:
    """Reports the status of the run: to the operator, in the pod's termination message, in ``status.yaml``.

    The reporter is a context manager. On exit it waits, for a limited time, for the delivery of the last
    report.
    """

    def __init__(self, config: RunConfig, *, local_status: bool | None = None, interval: float = 1.0) -> None:
        """Prepare the reporter. Nothing is sent yet.

        - ``local_status``: whether to write ``status.yaml``. None: write it only if ``config`` names no
          operator that gets the reports.
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
        """Call ``close``: wait for a limited time until the last report is delivered."""
        self.close()

    @property
    def attempt(self) -> str:
        """The id of this attempt: the UID of its pod, or a random id for a local run."""
        return self._attempt

    @property
    def fenced(self) -> bool:
        """Whether a newer attempt has replaced this attempt, so that this attempt may not report any more."""
        return self._fenced

    @property
    def stop(self) -> Stop | None:
        """The newest ``spec.stop`` that the operator has sent in a response. None: it has not sent one."""
        return self._stop

    def publish(self, run: RunStatus, *, ending: Ending | None = None, force: bool = False) -> None:
        """Send a status to the operator in the background. Write the termination message and ``status.yaml``.

        - ``ending``: how the attempt ended. None: it still runs.
        - ``force``: write ``status.yaml`` even if this was done less than a second ago.

        Raises Fenced if a newer attempt has replaced this one and ``ending`` is None. Raises no other error.
        Once it is replaced, an attempt neither sends reports nor writes ``status.yaml``.
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
        """Wait at most ``timeout`` seconds for the delivery of the newest report. Later reports are not sent.

        Return False if the operator has not received the newest report in this time. A report that the
        operator refused counts as received. If there is nothing to deliver, return True.

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
        """Send reports until the reporter is closed. Only the newest report is sent; older ones are skipped.

        This method is the background thread.
        """
        failures = 0
        while (report := self._next()) is not None:
            started = time.monotonic()
            done = self._deliver(target, report)
            failures = 0 if done else failures + 1
            self._pause(started + backoff(failures, self._interval))

    def _next(self) -> ProgressReport | None:
        """Wait until there is a new report, and return it.

        Return None if no report will be sent any more:

        - a newer attempt has replaced this one
        - the reporter is closed, and there is no new report
        - the reporter is closed, and the time for the last report is over
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
        """Wait until ``time.monotonic()`` is ``until``. After a ``close``, wait at most one interval."""
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
        """Send one report to the operator. Return True unless the report has to be sent again.

        Problems are logged, not raised. Also note if the operator says that a newer attempt reports.
        """
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
        """Store the ``spec.stop`` from the operator's response ``answer`` (JSON). Log an invalid response."""
        try:
            said = wire.read(ReportAnswer, answer or b"{}")
        except ValidationError as error:
            self._complain("answer", f"the operator's answer is invalid: {error.errors()[0]['msg']}")
            return
        if said.stop is not None:
            self._stop = said.stop

    def _complain(self, kind: str, message: str) -> None:
        """Log a problem with reports. A problem of the same kind is logged once until a report succeeds."""
        if kind not in self._complaints:
            self._complaints.add(kind)
            log.warning("%s", message)

    def _write_termination(self, report: ProgressReport) -> None:
        """Write a short form of the report to the file of the pod's termination message.

        The kubelet copies the message to the pod's status when the container ends. It is written with every
        report, because a trainer that is killed cannot write it at its end. The file is written in place: the
        kubelet mounts this single file, so a rename cannot replace it.
        """
        assert self._termination is not None
        message = json.dumps(report.termination_message(), separators=(",", ":"), allow_nan=False)
        self._termination.write_text(message, encoding="utf-8")

    def _quietly(self, what: str, write: Callable[[], None]) -> None:
        """Call ``write``, which writes the file ``what``. If it fails, only log this, and not every time."""
        try:
            write()
        except (OSError, ValueError) as error:
            self._complain(what, f"{what} cannot be written: {error}")


def _termination_log() -> Path | None:
    """Return the path of the file for the pod's termination message, or None outside a pod."""
    given = os.environ.get("RFT_TERMINATION_LOG")
    if given:
        return Path(given)
    path = Path(TERMINATION_LOG)
    return path if path.is_file() else None
