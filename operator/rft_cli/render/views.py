"""Formats RFTJobs, numbers and durations as text for the terminal. Pure functions."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

NONE = "-"


class JobRow(NamedTuple):
    """The cells of one RFTJob in the table of ``rft get``. A dash stands for an unknown value.

    - ``reward``, ``best``: the mean reward of the last step, and the highest mean reward of a step.
    - ``eta``: the estimated time until the end of the run. ``age``: the time since the job was created.
    """

    namespace: str
    name: str
    phase: str
    steps: str
    reward: str
    eta: str
    age: str
    best: str
    gpus: str
    model: str
    message: str


COLUMNS = ("name", "phase", "steps", "reward", "eta", "age")
WIDE_COLUMNS = (*COLUMNS, "best", "gpus", "model", "message")


def row(job: Mapping[str, Any], now: datetime) -> JobRow:
    """Return the cells of an RFTJob in the table of ``rft get``.

    ``job`` is the RFTJob as JSON. ``now`` is the current time, from which the job's age is computed.
    """
    metadata, status = job["metadata"], job.get("status") or {}
    progress, reward = status.get("progress") or {}, status.get("reward") or {}
    phase = phase_of(job)
    gpus = (status.get("plan") or {}).get("gpus")
    estimated = progress.get("totalStepsEstimated", True)
    return JobRow(
        namespace=metadata.get("namespace", ""),
        name=metadata["name"],
        phase=phase,
        steps=steps(progress.get("step"), progress.get("totalSteps"), estimated),
        reward=number(reward.get("latest")),
        eta=duration(progress.get("etaSeconds")) if phase == "Running" else NONE,
        age=duration(_seconds_since(metadata.get("creationTimestamp"), now)),
        best=number(reward.get("best")),
        gpus=NONE if gpus is None else str(gpus),
        model=str(((job.get("spec") or {}).get("model") or {}).get("name", NONE)),
        message=status.get("message") or "",
    )


def phase_of(job: Mapping[str, Any]) -> str:
    """Return ``status.phase`` of an RFTJob, or Pending if the operator has not processed the RFTJob yet."""
    return (job.get("status") or {}).get("phase") or "Pending"


def plain_line(job: Mapping[str, Any]) -> str:
    """Return the state of an RFTJob as a line of text: phase, step, reward, remaining time and message.

    The text does not have values that always change, such as the age of the job. If the message has several
    lines, the text has them too, indented.
    """
    shown = row(job, datetime.now(UTC))
    parts = [shown.phase, f"step {shown.steps}", f"reward {shown.reward}", f"eta {shown.eta}"]
    line = ", ".join(part for part in parts if not part.endswith(" -"))
    # Indented, so that no line of a message looks like a change of the job.
    return f"{line}: {shown.message}".replace("\n", "\n  ") if shown.message else line


def steps(step: int | None, total: int | None, estimated: bool) -> str:
    """Return the number of the last step and the total number of steps as text, such as ``12/40``.

    The text is ``12/~40`` if the total is an estimate, and ``12/?`` if ``total`` is None. It is a dash if
    ``step`` is None.
    """
    if step is None:
        return NONE
    return f"{step}/{'?' if total is None else f'~{total}' if estimated else total}"


def number(value: float | None, digits: int = 3) -> str:
    """Return a number as text with ``digits`` decimals, or a dash if it is None or not finite."""
    return NONE if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def duration(seconds: float | None) -> str:
    """Return a time in seconds as text with its two largest units: ``45s``, ``3m20s``, ``2h05m``, ``3d4h``.

    Return a dash if the time is None or not finite.
    """
    if seconds is None or not math.isfinite(seconds):
        return NONE
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600}h"


def _seconds_since(moment: str | None, now: datetime) -> float | None:
    if not moment:
        return None
    return (now - datetime.fromisoformat(moment.replace("Z", "+00:00")).astimezone(UTC)).total_seconds()
