"""The stages of a decision about an RFTJob: pure functions, called in the order of ``STAGES``.

A stage returns a Verdict, or ``None`` if it does not apply. The first stage that applies decides. So the
order of ``STAGES`` is the priority of the rules.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

from rft_api.conditions import COMPLETED_BECAUSE, Phase, Reason
from rft_api.lifecycle import read_moment
from rft_api.problems import Problem
from rft_api.status import Progress, RunStatus
from rft_operator import clock
from rft_operator.decision import ChildKind, Facts, Verdict
from rft_operator.failures import Failure, Hindrance, classify, hindrance, stopped_too_often
from rft_operator.kueue import held, other_kind
from rft_operator.objects.job import own_count_limit
from rft_operator.objects.names import QUEUE_LABEL, owner_of
from rft_operator.observe import Pod
from rft_operator.obstacles import blocked, provisioning, pull_secret, unplaced
from rft_operator.refusals import advised, explained, or_correct
from rft_operator.stall import Silence, last_word, silence
from rft_planner.unschedulable import explain_unschedulable

CONFLICT_RECHECK_SECONDS = 60.0
LOST_RECHECK_SECONDS = 30.0
"""Seconds after which a job is checked again if the node of its pod does not answer. Nodes are not
watched."""
SIDECAR_SECONDS = 15.0
"""Seconds for which other programs' containers, such as istio-proxy, may run after the trainer has ended.
After this time, the operator counts the job as complete, and ends its pod."""
NODES_RECHECK_SECONDS = 300.0
"""Seconds after which a job is checked again if its pod is unschedulable. Nodes are not watched."""
UNJUDGED_SECONDS = 15.0
"""Seconds from the creation of a pod after which the status message says that no scheduler has looked at the
pod."""


def cancelled(facts: Facts) -> Verdict | None:
    """Return a Verdict if ``spec.cancel`` is true: the operator deletes the child Job. Once the Job does not
    exist any more and its pods have ended, the RFTJob is Cancelled.

    The deletion sends SIGTERM to the trainer, which then saves a checkpoint. If the child Job has already
    succeeded or failed, ``spec.cancel`` has no effect.
    """
    if not facts.wants("cancel") or _child_ended(facts):
        return None
    return _until_gone(facts, Reason.CANCELLED, "Cancelling") or Verdict(
        "Cancelled", Reason.CANCELLED, "Cancelled by spec.cancel.", ended=True
    )


def _until_gone(facts: Facts, reason: str, doing: str) -> Verdict | None:
    """Return the Verdict that deletes the child Job and waits for the end of its pods. Return ``None`` once
    the Job does not exist any more and all pods have ended.

    - ``reason``: the reason of the Verdict.
    - ``doing``: the beginning of the message of the Verdict.
    """
    child = facts.observed.child
    if child is None and not facts.observed.any_alive:
        return None
    return Verdict(
        "Pending",
        reason,
        " ".join([f"{doing}: waiting for the trainer's checkpoint.", *_lost(facts)]),
        requeue_after=_nodes_again(facts),
        delete_child=child is not None and not child.deleting,
    )


def invalid(facts: Facts) -> Verdict | None:
    """Return a Verdict if there is no child Job, and no valid spec in the RFTJob or in a snapshot: the job is
    Invalid until the user corrects the spec.
    """
    if facts.spec is not None or facts.observed.child is not None:
        return None
    return Verdict("Invalid", Reason.INVALID_SPEC, joined(facts.problems))


def name_taken(facts: Facts) -> Verdict | None:
    """Return a Verdict if an object of another owner has the name of a child object of this RFTJob: the job
    is Pending while that object exists. The operator never changes that object.
    """
    if not facts.observed.conflicts:
        return None
    names = ", ".join(facts.observed.conflicts)
    return Verdict(
        "Pending",
        Reason.NAME_CONFLICT,
        f"{names} exists, but does not belong to this RFTJob; remove it or give the job another name",
        requeue_after=CONFLICT_RECHECK_SECONDS,
    )


def succeeded(facts: Facts) -> Verdict | None:
    """Return a Verdict if the child Job is complete: the job is Succeeded."""
    child = facts.observed.child
    return _completed(facts) if child is not None and child.complete else None


def _completed(facts: Facts) -> Verdict:
    ending = facts.report.ending if facts.report is not None else None
    reason = ending.reason if ending is not None and ending.reason in COMPLETED_BECAUSE else Reason.COMPLETED
    message = (ending.message if ending is not None else "") or COMPLETED_BECAUSE[reason]
    return Verdict("Succeeded", reason, message, ended=True)


def failed(facts: Facts) -> Verdict | None:
    """Return a Verdict if the run cannot go on: the job is Failed.

    There are four cases:

    - A pod failed in a way that another attempt would repeat.
    - More pods failed than ``retry.limit`` allows.
    - Pods were stopped too often. See ``stopped_too_often``.
    - The Job controller ended the child Job as failed.
    """
    child = facts.observed.child
    if child is None:
        return None
    failures = failures_of(facts)
    counted = [failure for failure in failures if failure.counted]
    permanent = next((failure for failure in failures if failure.permanent), None)
    if permanent is not None:
        return _failure(facts, permanent.reason, permanent.message)
    if counted and len(counted) > _retry_limit(facts):
        last = counted[-1]
        known = last.reason != Reason.TRAINER_FAILED
        reason = last.reason if known else Reason.BACKOFF_LIMIT
        times = "once" if len(counted) == 1 else f"{len(counted)} times; the last failure"
        return _failure(facts, reason, f"Failed {times}: {last.message}")
    current = _current(facts)
    # A run that trains now does not fail for the stops of earlier pods: an older release of the operator did
    # not limit their number.
    trains = current is not None and current.phase == "Running"
    over = [pod for pod in facts.observed.attempts if pod.failed]
    stopped = None if trains else stopped_too_often(over, facts.plan)
    if stopped is not None:
        return _failure(facts, stopped.reason, stopped.message)
    if child.failed and child.failed_reason == Reason.ACTIVE_DEADLINE:
        said = (
            f"The child Job was active for spec.activeDeadlineSeconds, {child.deadline} s. The run's folder"
            " has its last checkpoint; a new RFTJob needs a larger activeDeadlineSeconds"
        )
        return _failure(facts, Reason.ACTIVE_DEADLINE, said)
    if child.failed:
        said = f"{child.failed_reason}: {child.failed_message}"
        last_words = f"; the last failure: {failures[-1].message}" if failures else ""
        return _failure(facts, Reason.BACKOFF_LIMIT, said + last_words)
    return None


def _failure(facts: Facts, reason: str, message: str) -> Verdict:
    return Verdict("Failed", reason, message, ended=True, patch_child=end_now(facts))


def suspended(facts: Facts) -> Verdict | None:
    """Return a Verdict if ``spec.suspend`` is true: the operator deletes the child Job. Once the Job does not
    exist any more and its pods have ended, the RFTJob is Suspended.
    """
    if not facts.wants("suspend"):
        return None
    return _until_gone(facts, Reason.SUSPENDED, "Suspending") or Verdict(
        "Suspended", Reason.SUSPENDED, "Suspended by spec.suspend; the GPUs are free."
    )


def leaving(facts: Facts) -> Verdict | None:
    """Return a Verdict if the child Job is being deleted, or was deleted but one of its pods may still run:
    the RFTJob is Pending.

    The operator creates no new Job before the old Job does not exist any more and its pods have ended.
    Otherwise two trainers could write to one run's folder at the same time.
    """
    child = facts.observed.child
    gone = child is None and not facts.observed.any_alive
    if gone or (child is not None and not child.deleting):
        return None
    said = " ".join(["Waiting for the previous pod to end.", *_lost(facts)])
    return Verdict("Pending", Reason.WAITING_FOR_POD, said, requeue_after=_nodes_again(facts))


def too_late(facts: Facts) -> Verdict | None:
    """Return a Verdict if ``stop.deadline`` passed before the first step, and no pod runs: the job is
    Invalid.

    The operator deletes the child Job. The run starts once the user sets a later deadline, or removes it.
    While a trainer runs, it ends the run at the deadline itself.
    """
    deadline = deadline_of(facts)
    made = (facts.status.get("progress") or {}).get("step") or 0
    if facts.report is not None:
        made = max(made, facts.report.run.progress.step)
    runs = any(pod.phase == "Running" or _succeeded(pod) for pod in facts.observed.attempts)
    if deadline is None or facts.now < deadline or made or runs:
        return None
    child = facts.observed.child
    said = (
        f"spec.stop.deadline {clock.rfc3339(deadline)} has passed, and the run has made no step."
        " Set a later deadline, or remove the field"
    )
    return Verdict("Invalid", Reason.DEADLINE, said, delete_child=child is not None and not child.deleting)


def deadline_of(facts: Facts) -> datetime | None:
    """Return ``stop.deadline``, or ``None`` if the spec has no deadline.

    It comes from the RFTJob's present spec, because the user may change it during a run. If the present spec
    is invalid, it comes from the snapshot, which has the spec with which the run was started.
    """
    spec = facts.job.spec if facts.job is not None else facts.spec
    stop = spec.stop if spec is not None else None
    return read_moment(stop.deadline) if stop is not None and stop.deadline is not None else None


def unplannable(facts: Facts) -> Verdict | None:
    """Return a Verdict if no plan can be made for the spec, and no child Job exists: the job is Invalid."""
    if facts.unplannable is None or facts.observed.child is not None:
        return None
    return Verdict("Invalid", facts.unplannable.reason, str(facts.unplannable))


def to_create(facts: Facts) -> Verdict | None:
    """Return a Verdict if no child Job exists: the operator creates the Job and the other child objects. If
    the API server has refused this before, the message says why.
    """
    if facts.observed.child is not None:
        return None
    if facts.observed.refused:
        advice = advised(facts.observed.refused, facts.pod_spec)
        said = _and(facts.observed.refused, f"{advice} The operator tries again.".strip())
        return Verdict("Pending", Reason.FAILED_CREATE, said, ensure=_missing(facts))
    return Verdict(
        "Pending", Reason.WAITING_FOR_POD, "The operator creates the child Job.", ensure=_missing(facts)
    )


def queued(facts: Facts) -> Verdict | None:
    """Return a Verdict if the child Job is suspended: the job is Queued, because a queue such as Kueue has
    not admitted the Job yet, or has preempted it.

    When a queue suspends a Job, the Job controller deletes its pods, and the trainer saves a checkpoint. The
    operator never resumes a suspended Job.
    """
    child = facts.observed.child
    if child is None or not child.suspended:
        return None
    wanted = owner_of(dict(facts.document)).queue
    why = held(facts.observed.workload, dict(wanted).get(QUEUE_LABEL, ""))
    patch = _own_count(facts) or {}
    if dict(wanted) != dict(child.queue):  # the queue label was changed while the Job waits
        gone = {name: None for name, _ in child.queue}
        patch |= {"metadata": {"labels": {**gone, **dict(wanted)}}}
    return Verdict("Queued", why.reason, why.message, ensure=_missing(facts), patch_child=patch or None)


def _succeeded(pod: Pod) -> bool:
    return pod.trainer is not None and pod.trainer.exit_code == 0


def completing(facts: Facts) -> Verdict | None:
    """Return a Verdict if the trainer has ended successfully, but the child Job is not complete yet: the job
    is still Running.

    If containers that other programs have added to the pod still run ``SIDECAR_SECONDS`` after the end of the
    trainer, the operator ends the Job, and the job is Succeeded.
    """
    newest = facts.observed.attempts[-1] if facts.observed.attempts else None
    if newest is None or newest.failed or not _succeeded(newest):
        return None
    said = "The trainer has ended successfully; the Job is about to complete."
    if not newest.beside or newest.phase != "Running":
        return Verdict("Running", Reason.TRAINING, said)
    left = _sidecar_time_left(facts, newest)
    if left > 0:
        return Verdict("Running", Reason.TRAINING, said, requeue_after=left)
    # Containers that other programs have added would keep the pod running, and its GPUs in use, for ever.
    return replace(_completed(facts), patch_child=end_now(facts))


def _sidecar_time_left(facts: Facts, pod: Pod) -> float:
    """Return the remaining seconds for which containers of other programs may run after the trainer's end.
    Zero or less means that this time is over.
    """
    ended = clock.parse(pod.trainer.at) if pod.trainer is not None else None
    return SIDECAR_SECONDS - (facts.now - ended).total_seconds() if ended is not None else 0.0


def _held_open(pod: Pod | None) -> str:
    """Return a message about a failed pod that still runs, because containers of other programs run in it.
    Return "" for any other pod.
    """
    if pod is None or not pod.failed or pod.phase != "Running" or not pod.beside:
        return ""
    return (
        f"The next attempt starts when pod {pod.name} has ended, but containers that another program added to"
        f" this pod still run: {', '.join(pod.beside)}. Make them native sidecars, or keep them out of the"
        ' pod by spec.template.annotations, such as sidecar.istio.io/inject: "false".'
    )


def node_lost(facts: Facts) -> Verdict | None:
    """Return a Verdict if the node of a pod does not answer: the job is Running and stalled. The pod may
    still run on this node, so no other pod of the job may start.
    """
    said = _lost(facts)
    if not said:
        return None
    ensure, patch = _missing(facts), _own_count(facts)
    return Verdict(
        "Running", Reason.NODE_LOST, " ".join(said), stalled=True, ensure=ensure, patch_child=patch,
        requeue_after=LOST_RECHECK_SECONDS,
    )  # fmt: skip


def _lost(facts: Facts) -> list[str]:
    """Return a message for each pod whose node does not answer, with commands that end the pod."""
    silent = {node.name: node.silent_since for node in facts.observed.nodes if node.silent_since}
    pods = [pod for pod in facts.observed.pods if pod.alive and pod.node in silent]
    return [
        f"Node {pod.node} has not answered since {silent[pod.node]}, so nobody knows whether pod {pod.name}"
        f" still runs there, and no other pod starts{_until_when(pod)}. If the machine is off or gone:"
        f" kubectl delete node {pod.node}, or kubectl taint node {pod.node}"
        " node.kubernetes.io/out-of-service=nodeshutdown:NoExecute."
        for pod in pods
    ]


def _until_when(pod: Pod) -> str:
    return " before the node answers again" if pod.deleting else " before the cluster deletes the pod"


def _nodes_again(facts: Facts) -> float | None:
    return LOST_RECHECK_SECONDS if _lost(facts) else None


def waiting(facts: Facts) -> Verdict | None:
    """Return a Verdict if no pod of the job runs: the job is Pending or Starting. The message says why: the
    pod does not exist yet, has no node yet, or cannot start.
    """
    pod = _current(facts)
    # In a running pod a native sidecar may wait for its restart. If the trainer has started, this stage does
    # not apply.
    if pod is not None and pod.phase == "Running" and (pod.waiting is None or pod.started):
        return None
    ensure, patch = _missing(facts), _own_count(facts)
    failures = failures_of(facts)
    held = (_held(facts, pod) if pod is not None else None) or blocked(
        facts.pod_spec, facts.observed.child, pod, facts.observed.obstacles, _last_created(facts)
    )
    phase: Phase = "Starting" if pod is not None and pod.scheduled else "Pending"
    elsewhere = _elsewhere(facts)
    unjudged = _unjudged_seconds(facts, pod)
    if held is None and unjudged is not None and unjudged >= UNJUDGED_SECONDS and pod is not None:
        held = Hindrance(Reason.UNSCHEDULABLE, _without_scheduler(facts, pod))
    if held is not None:
        again = NODES_RECHECK_SECONDS if held.reason == Reason.UNSCHEDULABLE else None
        said = _and(held.message, elsewhere)
        return Verdict(phase, held.reason, said, ensure=ensure, patch_child=patch, requeue_after=again)
    if failures:
        newest = facts.observed.attempts[-1]
        said = _and(_of_attempt(len(failures), failures[-1]), _held_open(newest))
        return Verdict("Starting", Reason.RETRYING, said, ensure=ensure, patch_child=patch)
    message = _and("The pod starts." if phase == "Starting" else "Waiting for the pod.", elsewhere)
    again = UNJUDGED_SECONDS - unjudged if unjudged is not None else None
    return Verdict(
        phase, Reason.WAITING_FOR_POD, message, ensure=ensure, patch_child=patch, requeue_after=again
    )


def _unjudged_seconds(facts: Facts, pod: Pod | None) -> float | None:
    """Return the seconds since the creation of ``pod`` if no scheduler has looked at it yet. Return ``None``
    if a scheduler has looked at it, or if there is no pod.
    """
    created = clock.parse(pod.created) if pod is not None and not pod.judged else None
    return (facts.now - created).total_seconds() if created is not None else None


def _without_scheduler(facts: Facts, pod: Pod) -> str:
    """Return a message about a pod that no scheduler has looked at.

    One possible cause: a scheduler does not look at a pod before the pod's ResourceClaims exist, and posts no
    Event about this.
    """
    said = f"The scheduler {pod.scheduler} has not looked at pod {pod.name} since {pod.created}."
    template = facts.pod_spec.template if facts.pod_spec is not None else None
    names = [each.resource_claim_name for each in (template and template.resource_claims) or []]
    claims = [f"the ResourceClaim {name} exists{or_correct(name, facts.pod_spec)}" for name in names if name]
    correct = or_correct(pod.scheduler, facts.pod_spec)
    return f"{said} Find out whether {', '.join(claims) or f'this scheduler runs in the cluster{correct}'}."


def _last_created(facts: Facts) -> datetime | None:
    """Return the time when the newest pod of the child Job was created, or ``None`` if there is no pod."""
    attempts = facts.observed.attempts
    return clock.parse(attempts[-1].created) if attempts else None


def _of_attempt(number: int, failure: Failure) -> str:
    if failure.counted:
        return f"Attempt {number} failed: {failure.reason}: {failure.message}"
    return (
        f"Attempt {number} was {failure.message}. It does not count as failed, and the next attempt starts."
    )


def _elsewhere(facts: Facts) -> str:
    """Return a message if the pod must run on another kind of GPU than that of the plan, else ""."""
    child = facts.observed.child
    return other_kind(dict(child.node_labels), facts.plan) if child is not None and facts.plan else ""


def _and(message: str, other: str) -> str:
    """Join two messages into one text. ``other`` may be empty."""
    return f"{message.rstrip('.')}. {other}" if other else message


def _held(facts: Facts, pod: Pod) -> Hindrance | None:
    """Return why a pod does not start, or ``None`` if nothing prevents it. The message has advice on what to
    change, if any is known.
    """
    found, spec, events = hindrance(pod), facts.pod_spec, facts.observed.obstacles
    if found is not None and found.reason == Reason.CANNOT_START:
        return Hindrance(found.reason, explained("The pod cannot start", found.message, spec))
    if found is not None and found.reason == Reason.IMAGE_PULL:
        return Hindrance(
            found.reason, _and(found.message, pull_secret(spec, pod, events) or advised(found.message, spec))
        )
    if found is None or found.reason != Reason.UNSCHEDULABLE or facts.pod_spec is None or facts.plan is None:
        return found
    ending = next((other.name for other in facts.observed.attempts if other.alive and other.deleting), None)
    if ending is not None:
        said = (
            f"Pod {ending} is being ended; the next pod waits for its end, so that two trainers never run at"
            " once."
        )
        return Hindrance(Reason.WAITING_FOR_POD, said)
    said = explain_unschedulable(
        facts.pod_spec, facts.plan, facts.observed.nodes, pod.requests, found.message
    )
    helps = unplaced(spec, pod, events) or " ".join(
        filter(None, (provisioning(spec, events), advised(found.message, spec)))
    )
    return Hindrance(found.reason, _and(said, helps))


def running(facts: Facts) -> Verdict | None:
    """Return a Verdict about a job whose pod runs. The message says whether the trainer prepares, trains, or
    makes no progress. This is the last stage, and it always applies.
    """
    ensure, patch = _missing(facts), _own_count(facts)
    pod = _current(facts)
    run = last_word(facts.report, pod, facts.status) if pod is not None else None
    if pod is None or run is None or run.progress.stage == "preparing":
        return _preparing(facts, pod, run)
    quiet = silence(run, facts.now, facts.no_progress_seconds)
    left = quiet.left(facts.now)
    if left > 0:
        said = _progress(run.progress)
        return Verdict("Running", Reason.TRAINING, said, ensure=ensure, patch_child=patch, requeue_after=left)
    said = "\n".join(_and_its_log(str(quiet), pod, facts.observed.last_lines))
    return Verdict(
        "Running", Reason.NO_PROGRESS, said, stalled=True, ensure=ensure, patch_child=patch, log_of=pod.name
    )


def _preparing(facts: Facts, pod: Pod | None, run: RunStatus | None) -> Verdict:
    """Return the Verdict about a trainer that prepares its model and data. If the trainer sends no report for
    ``no_progress_seconds``, the run counts as stalled.

    ``pod`` is the pod of the trainer. ``run`` is the trainer's last report, or ``None`` if there is none.
    """
    ensure, patch = _missing(facts), _own_count(facts)
    said = "The trainer prepares its model and data."
    since = clock.parse(
        run.progress.updated_at if run is not None else pod.started if pod is not None else ""
    )
    snapshot = facts.observed.snapshot
    reports = snapshot is None or snapshot.report is not None
    if pod is None or since is None or not reports:  # without the ingest, no report comes before the end
        return Verdict("Starting", Reason.STARTING, said, ensure=ensure, patch_child=patch)
    quiet = Silence(since, facts.no_progress_seconds, None)
    left = quiet.left(facts.now)
    if left > 0:
        return Verdict(
            "Starting", Reason.STARTING, said, ensure=ensure, patch_child=patch, requeue_after=left
        )
    cause = (
        f"{quiet} The trainer still prepares its model and data, or its reports do not arrive. Check whether"
        f" pod {pod.name} can reach the hub, its volumes and the operator's Service."
    )
    lines = "\n".join(_and_its_log(cause, pod, facts.observed.last_lines))
    return Verdict(
        "Starting", Reason.NO_PROGRESS, lines, stalled=True, ensure=ensure, patch_child=patch, log_of=pod.name
    )


def _and_its_log(said: str, pod: Pod, lines: tuple[str, ...]) -> tuple[str, ...]:
    return (f"{said} The last lines of pod {pod.name}:", *lines) if lines else (said,)


STAGES: tuple[Callable[[Facts], Verdict | None], ...] = (
    cancelled,
    invalid,
    name_taken,
    succeeded,
    failed,
    suspended,
    leaving,
    too_late,
    unplannable,
    to_create,
    queued,
    node_lost,
    completing,
    waiting,
    running,
)


def _child_ended(facts: Facts) -> bool:
    return facts.observed.child is not None and facts.observed.child.finished


def _current(facts: Facts) -> Pod | None:
    """Return the newest pod of the job that has neither ended nor failed, or ``None``."""
    return next((pod for pod in reversed(facts.observed.attempts) if pod.alive and not pod.failed), None)


def failures_of(facts: Facts) -> list[Failure]:
    """Return why each failed pod of the current child Job failed, oldest first."""
    return [classify(pod, facts.plan) for pod in facts.observed.attempts if pod.failed]


def _retry_limit(facts: Facts) -> int:
    # Without a valid spec, only the limit of the child Job applies, which the Job controller checks.
    return facts.spec.retry.limit if facts.spec is not None else 2**31


def _own_count(facts: Facts) -> dict[str, Any] | None:
    """Return the patch that corrects the ``backoffLimit`` of the child Job, or None if the limit is right.

    If the API server dropped the Job's ``podFailurePolicy``, the Job controller also counts preemptions as
    failures. Then the patch raises the limit, and the operator counts the failures itself.
    """
    child = facts.observed.child
    if child is None or facts.spec is None:
        return None
    theirs, ours = facts.spec.retry.limit, own_count_limit(facts.spec.retry.limit)
    if child.has_failure_policy:
        # If the operator raised the limit before the API server supported failure policies, restore it.
        return {"spec": {"backoffLimit": theirs}} if child.backoff_limit == ours else None
    return {"spec": {"backoffLimit": ours}} if child.backoff_limit < ours else None


def _missing(facts: Facts) -> tuple[ChildKind, ...]:
    observed, spec = facts.observed, facts.spec
    if spec is None or facts.plan is None:
        return ()
    there = {
        ChildKind.CONFIG: observed.config_exists and not facts.renews,
        ChildKind.CA: observed.ca_current,
        ChildKind.CLAIM: spec.storage.claim_template is None or observed.claim_exists,
        ChildKind.JOB: observed.child is not None,
    }
    return tuple(part for part in ChildKind if not there[part])


def _progress(progress: Progress) -> str:
    if progress.stage == "evaluatingBase":
        return "Evaluating the base model."
    total = f" of {'about ' if progress.total_steps_estimated else ''}{progress.total_steps}"
    return f"Step {progress.step}{total if progress.total_steps is not None else ''}."


def joined(problems: tuple[Problem, ...]) -> str:
    """Return all problems of a manifest in one line."""
    return "; ".join(map(str, problems))


def end_now(facts: Facts) -> dict[str, Any] | None:
    """Return the patch that ends the child Job by a deadline of one second. Unlike a deletion of the Job,
    this keeps its ended pods and their logs.

    Return ``None`` if there is no Job to end, or if the Job has this deadline already.
    """
    child = facts.observed.child
    if child is None or child.finished or child.deadline == 1:
        return None
    return {"spec": {"activeDeadlineSeconds": 1}}
