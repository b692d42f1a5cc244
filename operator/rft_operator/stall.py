"""When a run that trains has stalled. Pure; ``stages.running`` asks, and says so.

A trainer speaks after every step, so a silence is measured in steps. Other work happens between two of them
(a held-out evaluation, a checkpoint, a sampler that is started again), and each may take some steps' time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from rft_api.report import ProgressReport
from rft_api.status import RunStatus
from rft_operator import clock
from rft_operator.observe import Pod

STEPS = 10.0
"""Steps' time for which a trainer may be silent."""
LEAST_SECONDS = 300.0
"""A sampler that died compiles and loads the model anew, however short the steps are."""


@dataclass(frozen=True)
class Silence:
    """Since when a trainer has said nothing, and for how long it may."""

    since: datetime
    allowed: float
    """Seconds."""
    step: float | None
    """Seconds of a step, where the allowance comes from it."""

    def left(self, now: datetime) -> float:
        """Return the seconds until it is too long; not above zero from then on."""
        return (self.since + timedelta(seconds=self.allowed) - now).total_seconds()

    def __str__(self) -> str:
        """Return the sentence of the condition."""
        because = f"; a step takes about {self.step:.0f} s" if self.step is not None else ""
        return f"No progress since {clock.rfc3339(self.since)}: {self.allowed:.0f} s are allowed{because}."


def silence(run: RunStatus, now: datetime, otherwise: float) -> Silence:
    """Return how long the trainer of ``run`` has been silent.

    ``otherwise`` is allowed, in seconds, where no step was made yet and while only evaluations run.
    """
    since = clock.parse(run.progress.updated_at) or now
    step = step_seconds(run)
    if step is None:
        return Silence(since, otherwise, None)
    allowed = max(LEAST_SECONDS, STEPS * step)
    if run.progress.stage != "training":
        return Silence(since, max(allowed, otherwise), None)
    return Silence(since, allowed, step)


def step_seconds(run: RunStatus) -> float | None:
    """Return the longer of the last step's time and the mean on which the time left rests, in seconds."""
    progress = run.progress
    found = [run.metrics.step_seconds if run.metrics is not None else None]
    if progress.eta_seconds is not None and (progress.total_steps or 0) > progress.step:
        found.append(progress.eta_seconds / ((progress.total_steps or 0) - progress.step))
    return max((seconds for seconds in found if seconds), default=None)


def last_word(report: ProgressReport | None, pod: Pod, status: Mapping[str, Any]) -> RunStatus | None:
    """Return what the trainer in ``pod`` said last, ``None`` where it said nothing.

    Reports are in memory only. After a restart of the operator the status still tells of a trainer that
    has said nothing since, which is what one that hangs does.
    """
    if report is not None:
        return report.run if report.attempt == pod.uid else None
    try:
        known = RunStatus.model_validate(
            {name: status[name] for name in ("progress", "metrics") if name in status},
            by_alias=True,
            by_name=False,
        )
    except ValidationError:
        return None
    said, created = clock.parse(known.progress.updated_at), clock.parse(pod.created)
    return known if said is not None and created is not None and said > created else None
