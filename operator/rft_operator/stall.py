"""Decides when a training run has stalled, with pure functions for ``stages.running``.

A trainer reports after every step. Between two steps there may be an evaluation, a checkpoint or a restart of
the sampler, and each of these may take as long as several steps. So a run counts as stalled only if there is
no report for several times the duration of a step.
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
"""Time allowed without a report, as a multiple of the duration of one step."""
LEAST_SECONDS = 300.0
"""Shortest allowed time in seconds without a report: a restarted sampler has to load and compile the
model."""


@dataclass(frozen=True)
class Silence:
    """The time of a trainer's last report (``since``), and how long it may be without a new report."""

    since: datetime
    allowed: float
    """The number of seconds that are allowed without a report."""
    step: float | None
    """The duration of one training step in seconds, for the message. ``None`` if the message does not name
    it."""

    def left(self, now: datetime) -> float:
        """Return the seconds until the run counts as stalled. Zero or less means that it has stalled."""
        return (self.since + timedelta(seconds=self.allowed) - now).total_seconds()

    def __str__(self) -> str:
        """Return the message of the condition of a stalled run."""
        step = f" A step takes about {self.step:.0f} s." if self.step is not None else ""
        since = clock.rfc3339(self.since)
        return f"No progress since {since}, longer than the allowed {self.allowed:.0f} s.{step}"


def silence(run: RunStatus, now: datetime, otherwise: float) -> Silence:
    """Return when the trainer of ``run`` last reported, and how long it may be without a further report.

    - ``now``: the time that is returned if ``run`` has no time of a report.
    - ``otherwise``: the allowed seconds without a report before the first step. While only evaluations run,
      at least this time is allowed too.
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
    """Return the expected duration of one step in seconds, or ``None`` if it is unknown.

    The result is the longer of two durations: that of the last step, and the mean that the trainer expects
    for the remaining steps.
    """
    progress = run.progress
    found = [run.metrics.step_seconds if run.metrics is not None else None]
    if progress.eta_seconds is not None and (progress.total_steps or 0) > progress.step:
        found.append(progress.eta_seconds / ((progress.total_steps or 0) - progress.step))
    return max((seconds for seconds in found if seconds), default=None)


def last_word(report: ProgressReport | None, pod: Pod, status: Mapping[str, Any]) -> RunStatus | None:
    """Return the last report of the trainer in ``pod``, or ``None`` if it has reported nothing.

    - ``report``: the newest report in the operator's memory. After a restart of the operator it is ``None``
      until the next report arrives.
    - ``status``: the status of the RFTJob. It is used if ``report`` is ``None``, and if its progress is newer
      than the pod. So even after a restart, the operator notices that a trainer hangs.
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
