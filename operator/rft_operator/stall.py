"""Decides when a training run has stalled. Pure; ``stages.running`` uses it.

A trainer reports after every step, so the time allowed without a report is a multiple of the step time.
Between two steps there may be other work, which may take as long as several steps: a held-out evaluation, a
checkpoint, or a restart of the sampler.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from rft_api.status import RunStatus
from rft_operator import clock
from rft_operator.observe import Pod
from rft_run import wire
from rft_run.report import ProgressReport

STEPS = 10.0
"""Time allowed without a report, as a multiple of the step time."""
LEAST_SECONDS = 300.0
"""Minimum number of seconds allowed without a report, because a restarted sampler has to load and compile
the model."""


@dataclass(frozen=True)
class Silence:
    """Since when a trainer has not reported, and how long it may go without a report."""

    since: datetime
    allowed: float
    """The number of seconds that are allowed without a report."""
    step: float | None
    """Seconds of one training step, if the allowed time is derived from the step time."""

    def left(self, now: datetime) -> float:
        """Return the seconds until the run counts as stalled. Zero or less means that it has stalled."""
        return (self.since + timedelta(seconds=self.allowed) - now).total_seconds()

    def __str__(self) -> str:
        """Return the message of the condition of a stalled run."""
        because = f"; a step takes about {self.step:.0f} s" if self.step is not None else ""
        return f"No progress since {clock.rfc3339(self.since)}: {self.allowed:.0f} s are allowed{because}."


def silence(run: RunStatus, now: datetime, otherwise: float) -> Silence:
    """Return since when the trainer of ``run`` has not reported, and the time allowed without a report.

    ``otherwise`` is the allowed time, in seconds, before the first step and while only evaluations run.
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
    """Return the seconds of one step: the longer of the last step and the expected mean of the remaining
    steps.
    """
    progress = run.progress
    found = [run.metrics.step_seconds if run.metrics is not None else None]
    if progress.eta_seconds is not None and (progress.total_steps or 0) > progress.step:
        found.append(progress.eta_seconds / ((progress.total_steps or 0) - progress.step))
    return max((seconds for seconds in found if seconds), default=None)


def last_word(report: ProgressReport | None, pod: Pod, status: Mapping[str, Any]) -> RunStatus | None:
    """Return the last report of the trainer in ``pod``, or ``None`` if there is none.

    Reports are kept in memory only. After a restart of the operator, the status is used instead of the last
    report. So the operator notices a trainer that hangs even after a restart.
    """
    if report is not None:
        return report.run if report.attempt == pod.uid else None
    try:
        known = wire.read_object(
            RunStatus, {name: status[name] for name in ("progress", "metrics") if name in status}
        )
    except ValidationError:
        return None
    said, created = clock.parse(known.progress.updated_at), clock.parse(pod.created)
    return known if said is not None and created is not None and said > created else None
