"""Keeps the newest report of every RFTJob in memory. A report has the whole state of a run, so older reports
are not needed.
"""

from rft_operator.ingest.identity import Caller, Refused
from rft_operator.observe import Received
from rft_run.report import ProgressReport, ReportAnswer


def check_position(known: Received | None, caller: Caller, report: ProgressReport) -> bool:
    """Return whether a report is new. It is not new if it repeats ``known``, the last accepted report.

    Raises:
        Refused: 403 if the report names another pod than its sender. 409 if the report is older than
            ``known``, or if a newer attempt has reported.
    """
    if report.attempt != caller.pod_uid:
        raise Refused(403, "the report names another pod than its token")
    if report.run.progress.attempt < caller.known_attempt:
        raise Refused(409, "the report is outdated: a newer attempt of this run has reported")
    if known is None:
        return True
    if known.pod_uid != caller.pod_uid:
        if known.order > (caller.pod_created, report.run.progress.attempt):
            raise Refused(409, "the report is outdated: a newer attempt of this run has reported")
        return True
    if report == known.report:
        # It was sent again, because the response to the first delivery was lost.
        return False
    if report.sequence <= known.report.sequence:
        sequence, last = report.sequence, known.report.sequence
        raise Refused(409, f"the report's sequence {sequence} is not above that of the last report, {last}")
    if report.run.progress.step < known.report.run.progress.step:
        step, last = report.run.progress.step, known.report.run.progress.step
        raise Refused(409, f"the report's step {step} is below that of the last report, {last}")
    return True


class Reports:
    """The newest report of each RFTJob, by the UID of the RFTJob. The event loop writes the reports, and
    worker threads read them.
    """

    def __init__(self) -> None:
        self._newest: dict[str, Received] = {}
        self._answers: dict[str, ReportAnswer] = {}

    def get(self, job_uid: str) -> Received | None:
        """Return the newest report of an RFTJob, or None if there is none."""
        return self._newest.get(job_uid)

    def accept(self, caller: Caller, report: ProgressReport) -> bool:
        """Store a report, and return whether it was new. Raises Refused as ``check_position`` does."""
        new = check_position(self.get(caller.job_uid), caller, report)
        if new:
            self._newest[caller.job_uid] = Received(report, caller.pod_uid, caller.pod_created)
        return new

    def set_answer(self, job_uid: str, answer: ReportAnswer) -> None:
        """Set the answer that the trainers of an RFTJob get to their reports: the settings that may change
        during a run.
        """
        self._answers[job_uid] = answer

    def answer(self, job_uid: str) -> ReportAnswer:
        """Return the answer that the trainers of an RFTJob get to their reports. Before the first
        reconciliation of the RFTJob, the answer is empty.
        """
        return self._answers.get(job_uid) or ReportAnswer()

    def forget(self, job_uid: str) -> None:
        """Drop the report of an RFTJob that was deleted, and the answer to its trainers."""
        self._answers.pop(job_uid, None)
        self._newest.pop(job_uid, None)
