"""Makes the status of an RFTJob from the decision of a stage and the report of the trainer, with pure
functions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from rft_api.conditions import TERMINAL_CONDITIONS, Condition, Gate, Phase, conditions_of, cut, merge
from rft_api.status import Progress, Reward, RFTJobStatus, thin
from rft_operator.clock import rfc3339
from rft_operator.observe import Observed, Received
from rft_run import wire
from rft_run.report import ProgressReport


@dataclass(frozen=True)
class Summary:
    """The part of the status that the operator decides. The other part comes from the trainer's report."""

    phase: Phase
    reason: str
    message: str
    accepted: Gate
    planned: Gate
    stalled: bool = False
    ended: bool = False
    """Whether the run has ended, in a phase that never changes again."""


def is_over(status: Mapping[str, Any]) -> bool:
    """Return whether the run has ended: whether one of ``TERMINAL_CONDITIONS`` is True in ``status``."""
    return any(
        c.get("type") in TERMINAL_CONDITIONS and c.get("status") == "True"
        for c in status.get("conditions") or []
    )


def conditions(
    summary: Summary, old: Sequence[Mapping[str, Any]], generation: int, now: datetime
) -> list[Condition]:
    """Return all conditions of an RFTJob. ``old`` are the present conditions.

    A condition whose status has not changed keeps its ``lastTransitionTime``.
    """
    wanted = conditions_of(
        summary.phase, summary.reason, summary.message, accepted=summary.accepted, planned=summary.planned,
        now=rfc3339(now), generation=generation, stalled=summary.stalled,
    )  # fmt: skip
    return merge(old, wanted)


def decided(summary: Summary, old: Mapping[str, Any], generation: int, now: datetime) -> dict[str, Any]:
    """Return the fields of ``RFTJobStatus`` that ``summary`` sets. The keys are their Python names.

    ``old`` is the present status, and ``generation`` is the generation of the spec.
    """
    fields: dict[str, Any] = {
        "observed_generation": generation,
        "phase": summary.phase,
        "message": cut(summary.message),
        "conditions": conditions(summary, old.get("conditions") or [], generation, now),
    }
    if summary.ended and "completionTime" not in old:
        fields["completion_time"] = rfc3339(now)
    return fields


def overlaid(old: Mapping[str, Any], new: RFTJobStatus) -> dict[str, Any]:
    """Return the status to write: the fields that are set in ``new``, and all other fields of ``old``.

    ``old`` is the status as the API server returned it. It may have fields that only another version of the
    operator knows. These fields are kept too.
    """
    said = new.dump()
    aliases = (RFTJobStatus.model_fields[name].alias or name for name in new.model_fields_set)
    return {**old, **{alias: said[alias] for alias in aliases if alias in said}}


def newest_report(observed: Observed) -> ProgressReport | None:
    """Return the newest report of the newest attempt, or ``None`` if there is no report.

    An attempt's last report to the ingest may be lost. So the report in the termination message of the newest
    pod that has started is used too. A termination message of an earlier pod is not used: after a restart,
    the operator may not know the reports of the newer attempt yet.
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
    """Return ``status`` with the fields of the report. If the report is None or older than ``status``, return
    ``status`` unchanged.
    """
    return overlaid(status, RFTJobStatus(**reported(status, report)))


def reported(old: Mapping[str, Any], report: ProgressReport | None) -> dict[str, Any]:
    """Return the fields of ``RFTJobStatus`` that ``report`` sets. The keys are their Python names.

    The result is empty if there is no report, or if the report is older than the status ``old``. While a new
    attempt has not read its checkpoint, the result has only ``progress``.
    """
    if report is None or is_behind(old, report):
        return {}
    fields = {name: value for name, value in report.run if value is not None}
    fields["progress"] = _progress(old, report.run.progress)
    if fields["progress"].step > report.run.progress.step:
        # The new attempt has not read its checkpoint yet, so its report has no earlier results.
        return {"progress": fields["progress"]}
    reward = merge_reward(old, report)
    return fields if reward is None else {**fields, "reward": reward}


_MADE = ("step", "totalSteps", "totalStepsEstimated", "epoch", "percent")


def _progress(old: Mapping[str, Any], new: Progress) -> Progress:
    """Return the progress for the status. ``new`` is the progress in a report, and ``old`` is the present
    status.

    A new attempt does not know how many steps the run has made before it has read its checkpoint. Until then,
    the counts of steps in ``old`` are kept.
    """
    known = old.get("progress") or {}
    if new.stage != "preparing" or new.step >= int(known.get("step", 0)):
        return new
    kept = {name: known[name] for name in _MADE if name in known}
    return wire.read_object(Progress, {**new.dump(), **kept})


def is_behind(status: Mapping[str, Any], report: ProgressReport) -> bool:
    """Return whether ``report`` is older than ``status``.

    A report of an earlier attempt is older. A report of the same attempt is older if its step is below that
    of ``status``, and also below the step from which the attempt resumed.
    """
    known = status.get("progress") or {}
    progress = report.run.progress
    attempt, step = int(known.get("attempt", 0)), int(known.get("step", 0))
    if progress.attempt != attempt:
        return progress.attempt < attempt
    # Without a volume, a new pod starts at step 0 again. Then resumed_from_step is 0, and the report is not
    # older.
    return progress.step < step and progress.step < report.resumed_from_step


def merge_reward(status: Mapping[str, Any], report: ProgressReport) -> Reward | None:
    """Return the reward with its curve: the valid points of the status, followed by the points of the report.
    Return ``None`` if neither has a reward.

    Points of an earlier attempt are valid up to the step from which the new attempt resumed. The new attempt
    repeats all later steps.
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
        return wire.read_object(Reward, status["reward"])
    except (KeyError, ValidationError):
        return None


def merge_patch(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON merge patch that changes ``old`` into ``new``. It is empty if both are equal."""
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if before == value:
            continue
        both = isinstance(before, Mapping) and isinstance(value, Mapping)
        patch[key] = merge_patch(before, value) if both else value  # type: ignore[arg-type]
    return patch
