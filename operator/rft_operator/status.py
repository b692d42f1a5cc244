"""Makes the status from a verdict and the trainer's report. Pure and idempotent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from rft_api.conditions import Gate, Phase, conditions_of, cut, merge
from rft_api.report import ProgressReport
from rft_api.status import Reward, RunStatus, thin
from rft_operator.clock import rfc3339
from rft_operator.observe import Observed, Received

RUN_FIELDS = tuple(info.alias or name for name, info in RunStatus.model_fields.items())


@dataclass(frozen=True)
class Summary:
    """The part of the status that does not come from the trainer."""

    phase: Phase
    reason: str
    message: str
    accepted: Gate
    planned: Gate
    stalled: bool = False
    ended: bool = False
    """Whether the run is finished: Complete or Failed is True, and never becomes False again."""


def is_over(status: Mapping[str, Any]) -> bool:
    """Return whether a terminal condition holds."""
    return any(
        c.get("type") in ("Complete", "Failed") and c.get("status") == "True"
        for c in status.get("conditions") or []
    )


def conditions(
    summary: Summary, old: Sequence[Mapping[str, Any]], generation: int, now: datetime
) -> list[dict[str, Any]]:
    """Return all conditions; those whose status stays keep the time of ``old``."""
    wanted = conditions_of(
        summary.phase, summary.reason, summary.message, accepted=summary.accepted, planned=summary.planned,
        now=rfc3339(now), generation=generation, stalled=summary.stalled, final=summary.ended,
    )  # fmt: skip
    return merge(old, wanted)


def with_summary(
    status: Mapping[str, Any], summary: Summary, generation: int, now: datetime
) -> dict[str, Any]:
    """Return ``status`` with phase, message and conditions of ``summary``."""
    changed = dict(status)
    changed["observedGeneration"] = generation
    changed["phase"] = summary.phase
    changed["message"] = cut(summary.message)
    changed["conditions"] = conditions(summary, status.get("conditions") or [], generation, now)
    if summary.ended:
        changed.setdefault("completionTime", rfc3339(now))
    return changed


def newest_report(observed: Observed) -> ProgressReport | None:
    """Return the last report of the newest attempt.

    The last push of an attempt may be lost, so its termination message counts too. It counts only while no
    newer attempt runs: that one's pushes may have been lost by a restart of the operator.
    """
    candidates: list[Received] = [observed.received] if observed.received is not None else []
    started = [pod for pod in observed.pods if pod.trainer is not None or pod.phase == "Running"]
    if started and started[-1].report is not None:
        last = started[-1]
        if last.report is not None and last.report.attempt == last.uid:
            candidates.append(Received(last.report, last.uid, last.created))
    if not candidates:
        return None
    return max(candidates, key=lambda c: (c.order, c.report.sequence)).report


def with_report(status: Mapping[str, Any], report: ProgressReport | None) -> dict[str, Any]:
    """Return ``status`` with the fields of the report; unchanged where the report is older than it."""
    if report is None or is_behind(status, report):
        return dict(status)
    said = report.run.dump()
    changed = {**status, **{name: said[name] for name in RUN_FIELDS if name in said}}
    reward = merge_reward(status, report)
    if reward is not None:
        changed["reward"] = reward.dump()
    return changed


def is_behind(status: Mapping[str, Any], report: ProgressReport) -> bool:
    """Return whether ``report`` is older than ``status``."""
    known = status.get("progress") or {}
    progress = report.run.progress
    attempt, step = int(known.get("attempt", 0)), int(known.get("step", 0))
    if progress.attempt != attempt:
        return progress.attempt < attempt
    # Without a volume a new pod starts at step 0 again, which is then the step it resumed from.
    return progress.step < step and progress.step < report.resumed_from_step


def merge_reward(status: Mapping[str, Any], report: ProgressReport) -> Reward | None:
    """Return the curve: the points of the status that are still valid, then the report's.

    Points of an earlier attempt are valid up to ``resumedFromStep``; later steps were made again.
    """
    old = _reward(status)
    new = report.run.reward
    if old is None:
        return new
    same_attempt = (status.get("progress") or {}).get("attempt") == report.run.progress.attempt
    bound = report.run.progress.step if same_attempt else report.resumed_from_step
    points = new.history if new is not None else []
    first = points[0].step if points else bound + 1
    kept = [p for p in old.history if p.step <= bound and p.step < first]
    base = new if new is not None else old
    return base.model_copy(update={"history": thin([*kept, *points])})


def _reward(status: Mapping[str, Any]) -> Reward | None:
    try:
        return Reward.model_validate(status["reward"], by_alias=True, by_name=False)
    except (KeyError, ValidationError):
        return None


def merge_patch(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON merge patch from ``old`` to ``new``; empty when they are equal."""
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if before == value:
            continue
        both = isinstance(before, Mapping) and isinstance(value, Mapping)
        patch[key] = merge_patch(before, value) if both else value  # type: ignore[arg-type]
    return patch
