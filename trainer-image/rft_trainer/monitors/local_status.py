"""Writes ``status.yaml`` of a local run: the same status that the operator writes on a cluster."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rft_api.base import known
from rft_api.conditions import ACCEPTED, Phase, Reason, conditions_of, merge, planned_by
from rft_api.status import Plan, RFTJobStatus, RunStatus
from rft_run.config import RunConfig
from rft_run.exit_codes import ExitCode
from rft_run.folder import RunFolder
from rft_run.report import Ending
from rft_run.status_file import status_object, write_status

WRITE_SECONDS = 1.0
"""Minimum number of seconds between two writes of ``status.yaml``, unless a write is forced."""


def phase_of(run: RunStatus, ending: Ending | None) -> Phase:
    """Return the phase of a run, such as ``Running``. ``ending``: how the attempt ended. None: it runs."""
    if ending is None:
        return "Starting" if run.progress.stage == "preparing" else "Running"
    if ending.exit_code == ExitCode.OK:
        return "Succeeded"
    # A preempted run has saved a checkpoint. The same command resumes the run.
    return "Suspended" if ending.exit_code == ExitCode.PREEMPTED else "Failed"


class LocalStatus:
    """The file ``status.yaml`` of a local run. It has the status that an RFTJob has on a cluster."""

    def __init__(self, config: RunConfig) -> None:
        """Read the start time and the conditions from the ``status.yaml`` of an earlier attempt, if any."""
        self._path = RunFolder(Path(config.run_dir)).status
        self._plan = (config.plan or Plan(device=config.device, gpus=config.gpus)).model_copy(
            update={"effective": config.effective}
        )
        before = self._read()
        self._start_time = str(before.get("startTime") or _now())
        conditions = before.get("conditions")
        self._conditions: list[dict[str, Any]] = conditions if isinstance(conditions, list) else []
        self._written_at = -WRITE_SECONDS

    def write(self, run: RunStatus, ending: Ending | None, *, force: bool = False) -> None:
        """Write the status of the run to ``status.yaml``, unless this was done less than a second ago.

        With an ``ending`` (how the attempt ended) or ``force`` the file is written in any case. But if a
        newer attempt has replaced this one (the exit code FENCED), the file is not written. Raises OSError.
        """
        if ending is not None and ending.exit_code == ExitCode.FENCED:
            return  # a newer attempt owns the folder
        if not (force or ending) and time.monotonic() - self._written_at < WRITE_SECONDS:
            return
        status = self.status(run, ending, _now())
        self._conditions = status.dump()["conditions"]
        write_status(self._path, status)
        self._written_at = time.monotonic()

    def status(self, run: RunStatus, ending: Ending | None, now: str) -> RFTJobStatus:
        """Return the status for ``status.yaml``: phase, conditions, plan and the values of ``run``.

        - ``ending``: how the attempt ended. None: it still runs.
        - ``now``: the current time as text (RFC 3339).
        """
        phase = phase_of(run, ending)
        if phase == "Suspended":
            reason = Reason.SUSPENDED
        elif ending is not None:
            reason = ending.reason
        else:
            reason = Reason.STARTING if phase == "Starting" else Reason.TRAINING
        message = ending.message if ending is not None else _progress_message(run)
        wanted = conditions_of(
            phase, reason, message, accepted=ACCEPTED, planned=planned_by(self._plan.notes or []), now=now
        )
        of_run = known(**dict(run))
        if phase in ("Succeeded", "Failed"):
            of_run["completion_time"] = now
        return RFTJobStatus(
            phase=phase,
            message=message,
            start_time=self._start_time,
            conditions=merge(self._conditions, wanted),
            plan=self._plan,
            **of_run,
        )

    def _read(self) -> dict[str, Any]:
        """Return the content of ``status.yaml`` from an earlier attempt, or {} if it cannot be read."""
        try:
            return status_object(self._path)
        except (OSError, ValueError):
            return {}


def _progress_message(run: RunStatus) -> str:
    progress = run.progress
    if progress.stage != "training":
        return {"preparing": "Preparing", "finished": "Finished"}.get(progress.stage, "Evaluating")
    if progress.total_steps is None:
        return f"Step {progress.step}"
    about = "about " if progress.total_steps_estimated else ""
    return f"Step {progress.step} of {about}{progress.total_steps}"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
