"""How a verdict and the trainer's reports become a status. Pure, and stable under repetition."""

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
    """What the status says besides the trainer's numbers."""

    phase: Phase
    reason: str
    message: str
    accepted: Gate
    planned: Gate
    stalled: bool = False
    ended: bool = False
    """Whether the run is over for good: it sets Complete or Failed, which never revert."""


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
    """Return the report that says most: of the newest attempt, its last word.

    A pod's termination message replaces pushes of the same attempt, because the last push may be
    lost. It counts only while no newer attempt runs, whose pushes may be lost to a restart of ours.
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
    """Return ``status`` with what the trainer says; unchanged when the report is behind it."""
    if report is None or is_behind(status, report):
        return dict(status)
    said = report.run.dump()
    changed = {**status, **{name: said[name] for name in RUN_FIELDS if name in said}}
    reward = merge_reward(status, report)
    if reward is not None:
        changed["reward"] = reward.dump()
    return changed


def is_behind(status: Mapping[str, Any], report: ProgressReport) -> bool:
    """Return whether ``status`` already says more than ``report``."""
    known = status.get("progress") or {}
    progress = report.run.progress
    attempt, step = int(known.get("attempt", 0)), int(known.get("step", 0))
    if progress.attempt != attempt:
        return progress.attempt < attempt
    # A folder that dies with its pod starts to count again: then the step is where it resumed from.
    return progress.step < step and progress.step < report.resumed_from_step


def merge_reward(status: Mapping[str, Any], report: ProgressReport) -> Reward | None:
    """Return the curve: the report's points, before them those of the status that still hold.

    Of an earlier attempt only what lies at or before ``resumedFromStep`` still holds: later steps
    were made again.
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
    """Return the JSON merge patch from ``old`` to ``new``; empty when they say the same."""
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if before == value:
            continue
        both = isinstance(before, Mapping) and isinstance(value, Mapping)
        patch[key] = merge_patch(before, value) if both else value  # type: ignore[arg-type]
    return patch
