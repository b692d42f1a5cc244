"""Keeps the newest trainer's report of every RFTJob in memory. Each report has the whole status of the run,
so older reports are not needed.
"""

from rft_operator.ingest.identity import Caller, Refused
from rft_operator.observe import Received
from rft_run.report import ProgressReport, ReportAnswer


def check_position(known: Received | None, caller: Caller, report: ProgressReport) -> bool:
    """Return whether a trainer's report is new. It is not new if it is equal to ``known``, the last accepted
    report of the RFTJob. ``caller`` is the sender.

    Raises:
        Refused: 403 if the report names another pod than its sender. 409 if its sequence number or its step
            shows that it is older than ``known``, or if a newer attempt has sent a report.
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
        # The trainer sent this report again, because it did not get the response.
        return False
    if report.sequence <= known.report.sequence:
        sequence, last = report.sequence, known.report.sequence
        raise Refused(409, f"the report's sequence {sequence} is not above that of the last report, {last}")
    if report.run.progress.step < known.report.run.progress.step:
        step, last = report.run.progress.step, known.report.run.progress.step
        raise Refused(409, f"the report's step {step} is below that of the last report, {last}")
    return True


class Reports:
    """A store in memory: for each RFTJob, its newest report and the answer to its trainers. The keys are UIDs
    of RFTJobs.

    The event loop writes the reports, and worker threads read them.
    """

    def __init__(self) -> None:
        self._newest: dict[str, Received] = {}
        self._answers: dict[str, ReportAnswer] = {}

    def get(self, job_uid: str) -> Received | None:
        """Return the newest report of an RFTJob, or None if no report has arrived."""
        return self._newest.get(job_uid)

    def accept(self, caller: Caller, report: ProgressReport) -> bool:
        """Store the report of ``caller`` if it is new, and return whether it is. It is not new if it repeats
        the last report. Raises Refused if it is outdated or names another pod than its sender.
        """
        new = check_position(self.get(caller.job_uid), caller, report)
        if new:
            self._newest[caller.job_uid] = Received(report, caller.pod_uid, caller.pod_created)
        return new

    def set_answer(self, job_uid: str, answer: ReportAnswer) -> None:
        """Set the answer that the trainers of an RFTJob get to their next reports. It has the settings that
        may change during a run.
        """
        self._answers[job_uid] = answer

    def answer(self, job_uid: str) -> ReportAnswer:
        """Return the answer that the trainers of an RFTJob get to their reports. It has no values until
        ``set_answer`` was called for this RFTJob, at the first reconciliation.
        """
        return self._answers.get(job_uid) or ReportAnswer()

    def forget(self, job_uid: str) -> None:
        """Drop the newest report of a deleted RFTJob, and the answer to its trainers."""
        self._answers.pop(job_uid, None)
        self._newest.pop(job_uid, None)
