"""Finds why Kueue keeps a child Job suspended, and makes a message for the user.

For each Job, Kueue has an object of its own, a Workload. It says why the Job is suspended. The module
``workloads`` reads it from the cluster, and this module parses it.

The conditions of a Workload and their reasons are documented under ``Workload`` in Kueue's API reference, for
kueue.x-k8s.io/v1beta1 and v1beta2.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rft_api.conditions import Reason
from rft_api.status import Plan
from rft_planner.accelerators import resource_of
from rft_planner.kind_labels import product_key
from rft_planner.nodes import catalogued

Raw = Mapping[str, Any]


@dataclass(frozen=True)
class Check:
    """An admission check of a Kueue Workload. Its ``state`` is Pending, Ready, Retry or Rejected."""

    name: str
    state: str
    message: str = ""


@dataclass(frozen=True)
class Workload:
    """The data of a Kueue Workload that the operator needs."""

    name: str
    queue: str = ""
    active: bool = True
    admitted: bool = False
    reserved: bool = False
    """Whether Kueue has reserved quota for the Workload. Kueue admits the Workload once the admission checks
    are ready too."""
    pending_reason: str = ""
    """Kueue's reason why the Workload has no quota: ``Pending`` or ``Inadmissible``. Empty before Kueue
    gives one."""
    pending_message: str = ""
    evicted_reason: str = ""
    evicted_message: str = ""
    evicted_at: str = ""
    requeue_at: str = ""
    """The time (RFC 3339) when Kueue considers the Workload again after an eviction."""
    checks: tuple[Check, ...] = ()
    place: int = 0
    """The position of the Workload in its LocalQueue, counted from 1 and rounded by ``rounded``. 0 if the
    position is unknown."""


PLACES = (20, 50, 100, 200, 500, 1000)
BEYOND = PLACES[-1] + 1
"""The rounded position of a Workload that is not among the first 1000."""


def rounded(place: int) -> int:
    """Round a position in a queue, so that it changes rarely.

    A position up to 10 is not changed. A larger position is rounded up to one of ``PLACES``. A position above
    the largest of ``PLACES`` becomes ``BEYOND``. Each job that Kueue admits changes the positions of all
    later jobs. Without rounding, the operator would write all these positions into statuses.
    """
    return place if place <= 10 else next((most for most in PLACES if place <= most), BEYOND)


@dataclass(frozen=True)
class Held:
    """Why a child Job is suspended: ``reason`` for the condition Ready, and ``message`` for users."""

    reason: str
    message: str


def workload(raw: Raw) -> Workload:
    """Parse a Kueue Workload. The object does not say its position in the queue, so ``place`` is 0."""
    spec, status = raw.get("spec") or {}, raw.get("status") or {}
    conditions = {c.get("type"): c for c in status.get("conditions") or []}
    quota, evicted = conditions.get("QuotaReserved") or {}, conditions.get("Evicted") or {}
    # Once the Workload has quota again, the condition Evicted stays, but its status is False.
    preempted = conditions.get("Preempted") or {}
    was = evicted if evicted.get("status") == "True" else {}
    by = preempted if was.get("reason") == "Preempted" and preempted.get("status") == "True" else was
    waits = quota.get("status") == "False"
    return Workload(
        name=raw["metadata"]["name"],
        queue=str(spec.get("queueName") or ""),
        active=spec.get("active") is not False,
        admitted=_holds(conditions.get("Admitted")),
        reserved=_holds(quota),
        pending_reason=str(quota.get("reason") or "") if waits else "",
        pending_message=str(quota.get("message") or "") if waits else "",
        evicted_reason=str(was.get("reason") or ""),
        evicted_message=str(by.get("message") or ""),
        evicted_at=str(was.get("lastTransitionTime") or ""),
        requeue_at=str((status.get("requeueState") or {}).get("requeueAt") or ""),
        checks=tuple(
            Check(str(c["name"]), str(c.get("state") or "Pending"), str(c.get("message") or ""))
            for c in status.get("admissionChecks") or []
        ),
    )


def _holds(condition: Raw | None) -> bool:
    return condition is not None and condition.get("status") == "True"


def held(found: Workload | None, queue: str) -> Held:
    """Return why a child Job is suspended. ``found`` is the Job's Workload, or ``None`` if it is not known.
    ``queue`` is the LocalQueue that the Job's label names, or "".
    """
    if found is None:
        said = (
            f"The child Job is suspended until LocalQueue {queue} admits it."
            if queue
            else "Somebody has suspended the child Job, and no label of the Job names a queue. To let the Job"
            " run, set its spec.suspend to false."
        )
        return Held(Reason.QUEUED, said)
    if not found.active:
        said = f"Kueue's Workload {found.name} is deactivated (spec.active is false){_because(found)}."
        return Held(Reason.INADMISSIBLE, f"{said} Set spec.active to true to queue it again.")
    check = _worst(found.checks)
    if check is not None and (found.reserved or check.state != "Pending"):
        message = f": {_sentence(check.message)}" if check.message else "."
        again = f" Kueue tries again at {found.requeue_at}." if found.requeue_at else ""
        reason = Reason.INADMISSIBLE if check.state == "Rejected" else Reason.QUEUED
        return Held(
            reason, f"AdmissionCheck {check.name} says {check.state}{message}{again}{_evicted(found)}"
        )
    if found.admitted:
        return Held(Reason.QUEUED, f"LocalQueue {queue} has admitted the child Job; it starts.")
    reason, said = Reason.QUEUED, f"The child Job waits in LocalQueue {queue}."
    if found.pending_message:
        said = f"The child Job waits in LocalQueue {queue}: {_sentence(found.pending_message)}"
    if found.place:
        said += f" The child Job is {_position(found.place)} in this LocalQueue."
    if found.pending_reason == "Inadmissible":
        reason = Reason.INADMISSIBLE
    elif found.evicted_reason == "Preempted":
        reason = Reason.PREEMPTED
    if found.requeue_at:
        said += f" Kueue does not consider the child Job until {found.requeue_at}."
    return Held(reason, said + _evicted(found))


def other_kind(node_labels: Mapping[str, str], plan: Plan) -> str:
    """Return a message if the pod must run on nodes with another kind of GPU than that of the plan, else "".

    ``node_labels`` are the labels that the pod's node must have. When Kueue admits a Job, it adds the node
    labels of the flavor that it chose. This flavor can have another kind of GPU only if the plan requires no
    label for its kind of GPU. The plan requires none if no node of this kind existed when it was made.
    """
    resource = plan.gpu_resource or resource_of(plan.accelerator)
    product = node_labels.get(product_key(resource))
    if not plan.gpus or product is None or product == plan.accelerator:
        return ""
    name = catalogued(node_labels, resource)
    if name == plan.accelerator:
        return ""
    memory = "resources.accelerator.memory to the memory of these GPUs"
    kind = f"resources.accelerator.name to {name}" if name else memory
    return (
        f"The pod needs nodes with {product_key(resource)}={product}, a label of the flavor that Kueue chose"
        f" or of resources.nodeSelector, but the plan is made for {plan.accelerator} and does not change: the"
        f" run may not fit on these nodes. Set {kind}, or resources.nodeSelector to nodes of the planned"
        " kind."
    )


def _because(found: Workload) -> str:
    return f": {found.evicted_message.rstrip('.')}" if found.evicted_message else ""


def _evicted(found: Workload) -> str:
    if not found.evicted_reason:
        return ""
    return f" Kueue stopped the child Job at {found.evicted_at} ({found.evicted_reason}){_because(found)}."


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


def _position(place: int) -> str:
    """Return a rounded position in a queue as words."""
    if place <= 10:
        return f"number {place}"
    return f"after the first {PLACES[-1]}" if place == BEYOND else f"among the first {place}"


def _worst(checks: Iterable[Check]) -> Check | None:
    """Return the admission check that is furthest from ready: a Rejected one, else a Retry one, else a
    Pending one. Return ``None`` if all checks are ready.
    """
    order = ("Rejected", "Retry", "Pending")
    waiting = sorted((c for c in checks if c.state in order), key=lambda c: order.index(c.state))
    return waiting[0] if waiting else None
