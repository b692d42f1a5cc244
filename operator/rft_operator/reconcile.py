"""Decides what happens to one RFTJob, with pure functions.

The decision is level-triggered: it depends on the RFTJob, the observed state of the cluster and the time. The
order and the number of events have no influence.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from rft_advice import baseline
from rft_api import rules
from rft_api.conditions import ACCEPTED, NOT_PLANNED, Gate, Reason, planned_by
from rft_api.defaults import NO_DEFAULTS, JobDefaults
from rft_api.immutability import follows, late_changes
from rft_api.job import RFTJobSpec
from rft_api.problems import Problem
from rft_api.status import Plan, RFTJobStatus
from rft_api.validation import CheckResult, check
from rft_operator import clock
from rft_operator.decision import ChildKind, Decision, Facts, Note, Verdict
from rft_operator.objects.names import owner_of
from rft_operator.observe import Observed
from rft_operator.stages import STAGES, deadline_of, end_now, failures_of, joined
from rft_operator.status import (
    Summary,
    decided,
    is_over,
    newest_report,
    overlaid,
    reported,
    with_report,
)
from rft_operator.ttl import seconds_left
from rft_planner.container import memory_check_disabled
from rft_planner.overrides import contradiction
from rft_planner.placement import placed
from rft_planner.plan import Unplannable
from rft_run import wire
from rft_run.cluster_text import ClusterObject, cluster_object, cluster_text
from rft_run.config import RunConfig

NO_PROGRESS_SECONDS = 1800.0


def reconcile(
    document: Mapping[str, Any],
    observed: Observed,
    now: datetime,
    no_progress_seconds: float = NO_PROGRESS_SECONDS,
    checked: CheckResult | None = None,
    defaults: JobDefaults = NO_DEFAULTS,
) -> Decision:
    """Return the new status of an RFTJob and the changes to its children.

    - ``no_progress_seconds``: seconds without a report after which a run counts as stalled. This limit is for
      the time before the first step, and for evaluations.
    - ``checked``: the result of the validation ``check(document)``, if the caller has it already.
    - ``defaults``: the present defaults of the platform. A run gets them if it has no snapshot yet.
    """
    if "deletionTimestamp" in document["metadata"]:
        # The garbage collector deletes the children.
        return Decision(cluster_object(document.get("status") or {}))
    facts = gather(document, observed, now, no_progress_seconds, checked or check(document), defaults)
    old = facts.status
    generation = document["metadata"].get("generation", 1)
    if is_over(old):
        # kstatus, a library of GitOps tools, waits until observedGeneration is the generation of the last
        # edit. The user may edit the RFTJob after the end of the run too.
        seen = {**with_report(old, facts.report), "observedGeneration": generation}
        return _after_the_end(facts, cluster_object(seen))
    verdict = next(found for stage in STAGES if (found := stage(facts)) is not None)
    summary = Summary(
        verdict.phase, verdict.reason, cluster_text(verdict.message),
        _cleaned(_accepted(facts)), _cleaned(_planned(facts)),
        stalled=verdict.stalled, ended=verdict.ended,
    )  # fmt: skip
    new = RFTJobStatus(
        **reported(old, facts.report),
        **_of_child(facts, verdict),
        **_of_baseline(facts),
        **decided(summary, old, generation, now),
    )
    # The status may have texts of users, pods and other programs. cluster_object cleans all of them.
    status = cluster_object(overlaid(_without_old_baseline(facts), new))
    return Decision(
        status=status,
        spec=facts.spec,
        defaults=facts.defaults,
        pod_spec=facts.pod_spec,
        plan=facts.plan,
        ensure=verdict.ensure,
        patch_child=verdict.patch_child,
        delete_child=verdict.delete_child,
        notes=_notes(facts, summary),
        # No watch event comes when the TTL has passed, so the key is requeued for that time.
        requeue_after=seconds_left(document, status, now) if is_over(status) else _again(facts, verdict),
        log_of=verdict.log_of,
    )


def _again(facts: Facts, verdict: Verdict) -> float | None:
    """Return the seconds until the next decision, or ``None`` if no time is set for it.

    The next decision is made at the time that the verdict sets, or at ``stop.deadline`` if that is earlier.
    """
    deadline = deadline_of(facts)
    left = (deadline - facts.now).total_seconds() if deadline is not None else -1.0
    return min(
        (after for after in (verdict.requeue_after, left) if after is not None and after > 0), default=None
    )


def gather(
    document: Mapping[str, Any],
    observed: Observed,
    now: datetime,
    no_progress_seconds: float,
    checked: CheckResult,
    defaults: JobDefaults,
) -> Facts:
    """Return all facts from which one reconciliation of an RFTJob decides what to do.

    The spec, the plan and the platform's defaults come from the snapshot, which is the configuration of the
    run in its ConfigMap. Without a snapshot, the spec is that of the RFTJob, the plan is made from this spec,
    and ``defaults`` are used.

    - ``no_progress_seconds``: as in ``reconcile``.
    - ``checked``: the result of the validation ``check(document)``.
    - ``defaults``: the present defaults of the platform.
    """
    job, problems = checked
    snapshot = observed.snapshot
    at_rest = observed.child is None and not observed.any_alive
    if at_rest and snapshot is not None and rules.problems(snapshot.spec):
        # An older release accepted this spec. The trainer of this release would refuse it and end the run. So
        # the snapshot is not used.
        snapshot = None
    renews = False
    if at_rest and job is not None:
        never_ran = not (document.get("status") or {}).get("startTime")
        if observed.config_exists:
            renews = _replaces(snapshot, job.spec, defaults, never_ran=never_ran)
    if renews:
        snapshot = None
    if snapshot is not None:
        defaults = snapshot.defaults or NO_DEFAULTS
    spec = snapshot.spec if snapshot is not None else job.spec if job is not None else None
    planned: Plan | None = snapshot.plan if snapshot is not None else None
    unplannable = None
    if planned is None and spec is not None:
        try:
            planned = placed(
                spec, document["metadata"]["uid"], observed.nodes, plan_from_status(document),
                force_memory=memory_check_disabled(document["metadata"].get("annotations")),
                defaults=defaults,
            )  # fmt: skip
        except Unplannable as error:
            unplannable = error
    return Facts(
        document, observed, now, job, problems, spec, defaults, renews, planned, unplannable,
        newest_report(observed), no_progress_seconds,
    )  # fmt: skip


def _replaces(
    snapshot: RunConfig | None, spec: RFTJobSpec, defaults: JobDefaults, *, never_ran: bool
) -> bool:
    """Return whether the stored configuration of a run, ``snapshot``, must be replaced by a new one with the
    present ``spec`` and ``defaults``.

    There are three cases:

    - ``snapshot`` is ``None``, because this release cannot use the stored snapshot.
    - The status has no start time (``never_ran``): no child Job of the run has been observed. And the spec or
      the defaults have changed. Perhaps the API server refused the Job because of the old values.
    - The status has a start time, and the user changed a field that may change when a run resumes. See
      ``follows``.
    """
    if snapshot is None:
        return True
    if never_ran:
        return spec != snapshot.spec or defaults != (snapshot.defaults or NO_DEFAULTS)
    return follows(snapshot.spec, spec)


def plan_from_status(document: Mapping[str, Any]) -> Plan | None:
    """Return the plan in the status if it was made for the present generation of the spec, else ``None``.

    The next plan is based on the returned plan. So it keeps the kind of GPU, even if the nodes have changed
    since then.
    """
    status = document.get("status") or {}
    if status.get("observedGeneration") != document["metadata"].get("generation", 1):
        return None
    try:
        return wire.read_object(Plan, status.get("plan"))
    except ValidationError:
        return None


def _after_the_end(facts: Facts, status: ClusterObject) -> Decision:
    """Return the decision about a finished job. ``status`` is the new status.

    A child Job that still runs is ended. After the TTL, the children are deleted.
    """
    child = facts.observed.child
    if child is not None and not child.finished and not child.deleting:
        if status.get("phase") == "Cancelled":
            return Decision(status, delete_child=True)
        return Decision(status, patch_child=end_now(facts))
    left = seconds_left(facts.document, status, facts.now)
    if left is None:
        return Decision(status)
    if left > 0:
        return Decision(status, requeue_after=left)
    return Decision(status, remove=_removable(facts.observed))


def _removable(observed: Observed) -> tuple[ChildKind, ...]:
    """Return the kinds of children to delete after the TTL. The PersistentVolumeClaim stays, because it has
    the results of the run.
    """
    there = {
        ChildKind.JOB: observed.child is not None and not observed.child.deleting,
        ChildKind.CONFIG: observed.config_exists,
        ChildKind.CA: observed.ca_exists,
    }
    return tuple(part for part, is_there in there.items() if is_there)


def _cleaned(gate: Gate) -> Gate:
    return gate._replace(message=cluster_text(gate.message))


def _accepted(facts: Facts) -> Gate:
    changed = _late_changes(facts)
    if changed:
        paths = ", ".join(problem.path for problem in changed)
        return Gate(
            False,
            Reason.IMMUTABLE_FIELD_CHANGED,
            f"{paths} changed after the start; the run goes on with the old values",
        )
    if facts.job is None:
        return Gate(False, Reason.INVALID_SPEC, joined(facts.problems))
    return ACCEPTED


def _late_changes(facts: Facts) -> list[Problem]:
    """Return the changes of the spec that came too late: the run goes on with the values in its snapshot."""
    snapshot = facts.observed.snapshot
    if snapshot is None or facts.job is None or facts.renews:
        return []
    return late_changes(snapshot.spec, facts.job.spec, pod_alive=True)


def _planned(facts: Facts) -> Gate:
    if facts.unplannable is not None:
        return Gate(False, facts.unplannable.reason, str(facts.unplannable))
    if facts.plan is None:
        return NOT_PLANNED
    return planned_by(facts.plan.notes or [])


def _of_child(facts: Facts, verdict: Verdict) -> dict[str, Any]:
    """Return the status fields about the plan and the child Job. The keys are their Python names."""
    counted = sum(failure.counted for failure in failures_of(facts))
    fields: dict[str, Any] = {"failed_pods": max(facts.status.get("failedPods", 0), counted)}
    if facts.plan is not None:
        fields["plan"] = facts.plan
    child = facts.observed.child
    if child is not None or ChildKind.JOB in verdict.ensure:
        fields["job_name"] = owner_of(dict(facts.document)).child
    if child is not None and "startTime" not in facts.status:
        fields["start_time"] = child.created or clock.rfc3339(facts.now)
    return fields


def baseline_to_read(document: Mapping[str, Any]) -> str | None:
    """Return the name of the baseline if the baseline must be read, else None.

    The baseline is an earlier RFTJob. It is read until two things have happened: the job has started, and its
    spec was compared with that of the baseline.
    """
    name, status = baseline.named_in(document), document.get("status") or {}
    known = status.get("baseline") or {}
    compared = known.get("job") == name and "changes" in known
    return None if compared and "startTime" in status else name


def _of_baseline(facts: Facts) -> dict[str, Any]:
    """Return the field ``baseline`` of the status, if the job must be compared with its baseline now.
    Otherwise return an empty dict.
    """
    name = baseline_to_read(facts.document)
    if name is None or facts.spec is None:
        return {}
    return {"baseline": baseline.compare(name, facts.spec, facts.observed.baseline)}


def _without_old_baseline(facts: Facts) -> Mapping[str, Any]:
    """Return the status of the RFTJob. Its field ``baseline`` is left out if the RFTJob's annotation names no
    baseline any more.
    """
    if baseline.named_in(facts.document) is not None:
        return facts.status
    return {name: value for name, value in facts.status.items() if name != "baseline"}


def _notes(facts: Facts, summary: Summary) -> tuple[Note, ...]:
    """Return the Events to post. They are about:

    - a plan, if there was none before
    - a number of GPUs in the spec that differs from that of such a plan
    - a change of the spec that the run ignores
    - a new reason of the condition Ready
    """
    old = {c.get("type"): c for c in facts.status.get("conditions") or []}
    notes: list[Note] = []
    accepted, planned = summary.accepted, summary.planned
    if planned.holds and (old.get("Planned") or {}).get("status") != "True":
        notes.append(Note(planned.reason, cluster_text(planned.message)))
        overridden = _overridden(facts)
        if overridden is not None:
            notes.append(Note(Reason.OVERRIDDEN, cluster_text(overridden), warning=True))
    was_rejected = (old.get("Accepted") or {}).get("reason")
    if accepted.reason == Reason.IMMUTABLE_FIELD_CHANGED != was_rejected:
        notes.append(Note(accepted.reason, cluster_text(accepted.message), warning=True))
    if (old.get("Ready") or {}).get("reason") != summary.reason:
        notes.append(Note(summary.reason, cluster_text(summary.message), warning=_is_bad(summary)))
    return tuple(notes)


def _overridden(facts: Facts) -> str | None:
    """Return a warning if the number of GPUs in the spec differs from that of the plan, else ``None``."""
    if facts.spec is None:
        return None
    uid, nodes = facts.document["metadata"]["uid"], facts.observed.nodes
    return contradiction(
        facts.spec, lambda spec: placed(spec, uid, nodes, facts.plan, defaults=facts.defaults)
    )


def _is_bad(summary: Summary) -> bool:
    worrying = (
        Reason.UNSCHEDULABLE,
        Reason.IMAGE_PULL,
        Reason.CANNOT_START,
        Reason.NO_PROGRESS,
        Reason.NAME_CONFLICT,
        Reason.FAILED_CREATE,
        Reason.INADMISSIBLE,
        Reason.NODE_LOST,
        Reason.RETRYING,
    )
    return summary.phase in ("Failed", "Invalid") or summary.reason in worrying
