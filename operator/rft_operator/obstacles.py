"""Finds the Events that say why the pod of a job does not start, with pure functions.

Kubernetes posts such an Event about one of three objects:

- about the child Job, if the API server refuses the pod
- about the pod, if a node cannot start it
- about a PersistentVolumeClaim, if it gets no volume
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from rft_api.conditions import Reason
from rft_api.job import RFTJobSpec
from rft_operator.failures import Hindrance
from rft_operator.observe import CLAIM, Child, Obstacle, Pod
from rft_operator.refusals import advised, claims_or_the_claim, explained, or_correct

FRESH_SECONDS = 150.0
"""For this many seconds an Event about a pod counts as current. While its cause lasts, the kubelet repeats
the Event at least every 122 s."""
OF_PODS = frozenset(
    (
        "FailedMount",
        "FailedAttachVolume",
        "FailedMapVolume",
        "FailedCreatePodSandBox",
        "NetworkNotReady",
        "FailedPrepareDynamicResources",
    )
)
"""Reasons of the Events that say why a pod cannot start on its node. A pod can start in spite of other
Warnings, such as those about DNS."""
_ATTACH = "FailedAttachVolume"
_NO_RESOURCE_CLAIM = "FailedResourceClaimCreation"
_PULL_SECRET = "FailedToRetrieveImagePullSecret"
_PROVISIONING = ("ExternalProvisioning", "Provisioning")
_TIMED_OUT = ("timed out waiting for the condition", "context deadline exceeded")


def needed(child: Child | None, pods: Iterable[Pod]) -> frozenset[str]:
    """Return the objects whose Events may say why a job's pod does not start: their keys, as in
    ``Obstacle.about``.

    The result is empty if the job does not wait for a pod.
    """
    if child is None or child.deleting or child.finished or child.suspended:
        return frozenset()
    alive = [pod for pod in pods if pod.controller == child.uid and pod.alive]
    if any(pod.phase == "Running" for pod in alive):
        return frozenset()
    return frozenset({child.uid, *(pod.uid for pod in alive), *(f"{CLAIM} {name}" for name in child.claims)})


def is_current(found: Obstacle, now: datetime) -> bool:
    """Return whether the cause of an Event may still exist, if only the age of the Event is considered.

    An Event about a pod is current for ``FRESH_SECONDS``. An Event about a Job or a claim is current at any
    age: the Job controller, for example, waits longer and longer before it tries again to create a pod. But
    ``blocked`` ignores an Event about a Job once the Job has a pod, and an Event about a claim if there is a
    newer one about the same claim.
    """
    if found.kind in ("Job", CLAIM) or found.at is None:
        return True
    return now - found.at < timedelta(seconds=FRESH_SECONDS)


def current(found: Iterable[Obstacle], now: datetime) -> list[Obstacle]:
    """Return the Events whose causes may still exist.

    Two kinds of Events about a pod are not repeated while their cause lasts, so they count even if they are
    old:

    - The Event that a volume is attached to another node counts as long as the kubelet reports that it waits
      for volumes.
    - The Event that a resource claim cannot be created counts until the pod has a node. ``blocked`` checks
      this.
    """
    events = list(found)
    waits = {each.uid for each in events if is_current(each, now) and _is_timeout(each)}
    return [
        each
        for each in events
        if is_current(each, now)
        or each.reason == _NO_RESOURCE_CLAIM
        or (each.reason == _ATTACH and each.uid in waits)
    ]


def _is_timeout(found: Obstacle) -> bool:
    """Return whether an Event only says that a kubelet has waited too long for volumes."""
    return found.reason == "FailedMount" and found.message.rstrip(".").endswith(_TIMED_OUT)


def blocked(
    spec: RFTJobSpec | None,
    child: Child | None,
    pod: Pod | None,
    obstacles: Iterable[Obstacle],
    last_created: datetime | None = None,
) -> Hindrance | None:
    """Return why the pod of a job does not start, or ``None`` if no Event says why.

    - ``pod``: the newest pod of the job that has not ended, or ``None`` if there is none.
    - ``obstacles``: the current Events.
    - ``last_created``: the time when the job's last pod was created. Earlier Events about the creation of
      pods do not count any more.
    """
    if child is None:
        return None
    found = list(obstacles)
    if pod is None:
        refused = _newest(each for each in found if each.about == child.uid and each.reason == "FailedCreate")
        if refused is None or (last_created and refused.at and refused.at <= last_created):
            return None
        return Hindrance(
            Reason.FAILED_CREATE, explained("The child Job cannot create its pod", refused.message, spec)
        )
    if not pod.scheduled:
        waits = unplaced(spec, pod, found)
        return Hindrance(Reason.CANNOT_START, waits) if waits else None
    of_pod = [each for each in found if each.about == pod.uid and each.reason in OF_PODS]
    said = _newest(each for each in of_pod if not _is_timeout(each)) or _newest(of_pod)
    if said is not None:
        what = f"The pod cannot start on node {pod.node}: {said.reason}"
        return Hindrance(Reason.CANNOT_START, explained(what, said.message, spec))
    return None


def unplaced(spec: RFTJobSpec | None, pod: Pod, obstacles: Iterable[Obstacle]) -> str:
    """Return a message that says why a pod gets no node: a PersistentVolumeClaim has no volume, or a
    ResourceClaim cannot be created. Return "" if no Event says so.
    """
    found = list(obstacles)
    claim = claim_blocked(spec, found)
    if claim:
        return claim
    refused = _newest(each for each in found if each.about == pod.uid and each.reason == _NO_RESOURCE_CLAIM)
    if refused is None:
        return ""
    return explained("A resource claim of the pod cannot be created", refused.message, spec)


def provisioning(spec: RFTJobSpec | None, obstacles: Iterable[Obstacle]) -> str:
    """Return a message about a PersistentVolumeClaim for which another program has not created a volume yet.
    Return "" if no Event reports such a claim.
    """
    found = _newest(each for each in obstacles if each.kind == CLAIM and each.reason in _PROVISIONING)
    if found is None:
        return ""
    said = f"The claim {found.name} gets no volume yet: {found.reason}: {found.message.rstrip('.')}."
    return f"{said} If this lasts, change {claims_or_the_claim(spec)}."


def pull_secret(spec: RFTJobSpec | None, pod: Pod, obstacles: Iterable[Obstacle]) -> str:
    """Return advice about a missing Secret for the image's registry. Return "" if no Event reports one."""
    found = _newest(each for each in obstacles if each.about == pod.uid and each.reason == _PULL_SECRET)
    return advised(found.message, spec) if found is not None else ""


def claim_blocked(spec: RFTJobSpec | None, obstacles: Iterable[Obstacle]) -> str:
    """Return a message that says why a claim of the job gets no volume. Return "" if no Event says why."""
    of_claims: dict[str, list[Obstacle]] = {}
    for each in obstacles:
        if each.kind == CLAIM:
            of_claims.setdefault(each.name, []).append(each)
    last = (_newest(events) for events in of_claims.values())
    found = _newest(each for each in last if each is not None and each.hinders)
    if found is None:
        return ""
    said = explained(f"The claim {found.name} gets no volume: {found.reason}", found.message, spec)
    if advised(found.message, spec):
        return said
    fields = or_correct(found.name, spec) or ", or correct spec.storage.claimTemplate"
    return f"{said} Change the claim{fields}."


def _newest(found: Iterable[Obstacle]) -> Obstacle | None:
    return max(found, key=lambda each: each.at.timestamp() if each.at is not None else 0.0, default=None)
