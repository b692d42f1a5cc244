"""Finds in Events why the pod of a job does not start, with pure functions.

Kubernetes posts such an Event about one of three objects:

- about the child Job, if the API server refuses the pod
- about the pod, if a node cannot start it
- about a PersistentVolumeClaim, if it gets no volume

``advised`` says what to do about a message of Kubernetes. The message may also be the API server's refusal of
a Job or claim.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from rft_api.conditions import Reason
from rft_api.job import RFTJobSpec
from rft_operator.failures import Hindrance
from rft_operator.objects.pod import GRADER_AMOUNTS
from rft_operator.observe import CLAIM, Child, Obstacle, Pod

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
"""Reasons of the Events that say why a pod cannot start. A pod can start in spite of other Warnings, such as
those about DNS."""


def needed(child: Child | None, pods: Iterable[Pod]) -> frozenset[str]:
    """Return the objects whose Events may say why a job's pod does not start. Each object is named by its
    key, as in ``Obstacle.about``.

    The result is empty if the job does not wait for a pod.
    """
    if child is None or child.deleting or child.finished or child.suspended:
        return frozenset()
    alive = [pod for pod in pods if pod.controller == child.uid and pod.alive]
    if any(pod.phase == "Running" for pod in alive):
        return frozenset()
    return frozenset({child.uid, *(pod.uid for pod in alive), *(f"{CLAIM} {name}" for name in child.claims)})


def is_current(found: Obstacle, now: datetime) -> bool:
    """Return whether the cause of an Event may still exist.

    An Event about a pod is current for ``FRESH_SECONDS``. An Event about a Job counts until the Job has a
    pod, because the Job controller waits longer and longer before it tries again to create the pod. An Event
    about a claim counts until there is a newer Event about this claim. ``blocked`` does the last two checks.
    """
    if found.kind in ("Job", CLAIM) or found.at is None:
        return True
    return now - found.at < timedelta(seconds=FRESH_SECONDS)


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
        claim = claim_blocked(spec, found)
        return Hindrance(Reason.CANNOT_START, claim) if claim else None
    of_pod = _newest(each for each in found if each.about == pod.uid and each.reason in OF_PODS)
    if of_pod is not None:
        said = explained(f"The pod cannot start on node {pod.node}: {of_pod.reason}", of_pod.message, spec)
        return Hindrance(Reason.CANNOT_START, said)
    return None


def claim_blocked(spec: RFTJobSpec | None, obstacles: Iterable[Obstacle]) -> str:
    """Return why a claim of the job gets no volume. Return "" if no Event says why."""
    of_claims: dict[str, list[Obstacle]] = {}
    for each in obstacles:
        if each.kind == CLAIM:
            of_claims.setdefault(each.name, []).append(each)
    last = (_newest(events) for events in of_claims.values())
    found = _newest(each for each in last if each is not None and each.hinders)
    if found is None:
        return ""
    return explained(f"The claim {found.name} gets no volume: {found.reason}", found.message, spec)


def _newest(found: Iterable[Obstacle]) -> Obstacle | None:
    return max(found, key=lambda each: each.at.timestamp() if each.at is not None else 0.0, default=None)


def explained(what: str, message: str, spec: RFTJobSpec | None) -> str:
    """Return ``what``, followed by the cause from Kubernetes' ``message``. If possible, also say what to
    do.
    """
    said, advice = f"{what}: {message.rstrip('.')}.", advised(message, spec)
    return f"{said} {advice}" if advice else said


def advised(message: str, spec: RFTJobSpec | None) -> str:
    """Return a sentence that says what to do about a message of Kubernetes, or "" if no advice is known."""
    advice = next((text for remedy in _REMEDIES if (text := remedy(message, spec))), "")
    return f"{advice}." if advice else ""


# Remedies: each returns a sentence for the messages that it knows, else "".

_FIELDS = {
    "memory": "spec.resources.memory",
    "cpu": "spec.resources.cpu",
    "limits.cpu": "spec.resources.cpuLimit",
    "ephemeral-storage": "spec.resources.ephemeralStorage",
}
_SIZE = "claimTemplate.size"


def _fields_of(resource: str, amount: str, spec: RFTJobSpec | None) -> list[str]:
    """Return the fields of the spec that set how much of a resource an object requests. ``amount`` is what it
    requests. Empty if no field is known.
    """
    name = resource.removeprefix("requests.").removeprefix("limits.")
    if "/" in name and "gpu" in name:
        return ["spec.resources.gpus"]
    if name == "storage" or name.endswith("/requests.storage"):
        # The message does not say which claim of the run it is about.
        sizes = [path for path in paths_of(spec.dump(), amount) if path.endswith(_SIZE)] if spec else []
        return sizes or [f"spec.storage.{_SIZE}"]
    found = _FIELDS.get(resource) or _FIELDS.get(name)
    return [found] if found else []


def _quota(message: str, spec: RFTJobSpec | None) -> str:
    found = re.search(r"exceeded quota: (\S+), requested: (\S+), used: \S+, limited: \S+", message)
    if found is None:
        return ""
    asked = [part.partition("=")[::2] for part in found[2].split(",")]
    fields = dict.fromkeys(field for name, amount in asked for field in _fields_of(name, amount, spec))
    lower = f"lower {' and '.join(fields)}, " if fields else ""
    return _sentence(f"{lower}wait until other objects are gone, or raise the ResourceQuota {found[1]}")


def _must_specify(message: str, _spec: RFTJobSpec | None) -> str:
    found = re.search(r"failed quota: (\S+): must specify (\S+)", message)
    if found is None:
        return ""
    set_field = "set spec.resources.cpuLimit, or " if "limits.cpu" in found[2] else ""
    return (
        f"The ResourceQuota {found[1]} wants {found[2]} on every container: {set_field}give the namespace a"
        " LimitRange with a default for it"
    )


def _limit_range(message: str, spec: RFTJobSpec | None) -> str:
    found = re.search(
        r"(maximum|minimum) (\S+) usage per (?:Container|Pod|PersistentVolumeClaim) is (\S+),"
        r" but (limit|request) is ([^\s.,]+)",
        message,
    )
    if found is None:
        return ""
    # The message names no container. The amounts of the grader's container are fixed.
    fixed = found[2] != "storage" and found[5] in GRADER_AMOUNTS
    fields = [] if fixed else _fields_of(f"{found[4]}s.{found[2]}", found[5], spec)
    verb = "lower" if found[1] == "maximum" else "raise"
    change = f"{verb} {' and '.join(fields)} to {found[3].rstrip('.,')}, or " if fields else ""
    return _sentence(f"{change}change the namespace's LimitRange")


_NOT_FOUND = re.compile(
    r'\b(configmap|secret|serviceaccount|persistentvolumeclaim|storageclass)\S* "?([^\s"]+)"? not found',
    re.IGNORECASE,
)


def _missing(message: str, spec: RFTJobSpec | None) -> str:
    found = _NOT_FOUND.search(message)
    if found is None:
        return ""
    name = found[2].rpartition("/")[2]
    return f"Create {_KINDS[found[1].lower()]} {name}{_or_correct(name, spec)}"


_KINDS = {
    "configmap": "the ConfigMap",
    "secret": "the Secret",
    "serviceaccount": "the ServiceAccount",
    "persistentvolumeclaim": "the PersistentVolumeClaim",
    "storageclass": "the StorageClass",
}


_NO_KEY = re.compile(r"references non-existent (?:config|secret) key: (\S+)|couldn't find key (\S+) in ")


def _key(message: str, spec: RFTJobSpec | None) -> str:
    found = _NO_KEY.search(message)
    if found is None:
        return ""
    key = found[1] or found[2]
    return f"Add the key {key}{_or_correct(key, spec)}"


def _attached(message: str, _spec: RFTJobSpec | None) -> str:
    if "Multi-Attach" not in message:
        return ""
    return "The pod starts by itself once the other node has released the volume"


def _no_class(message: str, _spec: RFTJobSpec | None) -> str:
    if "no storage class is set" not in message:
        return ""
    return "Set spec.storage.claimTemplate.storageClassName, or make one StorageClass the default"


def _security(message: str, _spec: RFTJobSpec | None) -> str:
    if "violates PodSecurity" not in message:
        return ""
    return "The Pod Security level of the namespace refuses the pod: see what spec.template adds to the pod"


def _policy(message: str, _spec: RFTJobSpec | None) -> str:
    found = re.search(
        r"admission webhook \"([^\"]+)\" denied the request|ValidatingAdmissionPolicy '([^']+)'", message
    )
    if found is None:
        return ""
    return f"The policy {found[1] or found[2]} of this cluster refuses this: ask who maintains the policy"


def _invalid(message: str, spec: RFTJobSpec | None) -> str:
    """Name the fields of the spec that have a value which the API server calls invalid in a Job or claim."""
    values = re.findall(r'(?:Invalid|Unsupported|Duplicate) value: "([^"]+)"', message)
    paths = dict.fromkeys(path for value in values for path in paths_of(spec.dump(), value)) if spec else {}
    return f"Correct {' or '.join(paths)}" if paths else ""


_REMEDIES: tuple[Callable[[str, RFTJobSpec | None], str], ...] = (
    _quota,
    _must_specify,
    _limit_range,
    _missing,
    _key,
    _attached,
    _no_class,
    _security,
    _policy,
    _invalid,
)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _or_correct(text: str, spec: RFTJobSpec | None) -> str:
    """Return the last part of a sentence. It tells the user to correct the fields of the spec that have the
    value ``text``. Empty if no field has this value.
    """
    paths = list(paths_of(spec.dump(), text)) if spec is not None else []
    return f", or correct {' or '.join(paths)}" if paths else ""


def paths_of(value: Any, wanted: str, path: str = "spec") -> Iterator[str]:
    """Yield the path of each field in ``value`` that is equal to ``wanted``. ``path`` is the path of
    ``value``.
    """
    if isinstance(value, Mapping):
        for name, child in value.items():
            yield from paths_of(child, wanted, f"{path}.{name}")
    elif isinstance(value, list):
        for number, child in enumerate(value):
            yield from paths_of(child, wanted, f"{path}[{number}]")
    elif value == wanted:
        yield path
