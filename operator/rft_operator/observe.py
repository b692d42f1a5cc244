"""Parses raw objects of the API server into small typed values, with pure functions."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from sys import intern
from typing import Any

from pydantic import ValidationError

from rft_operator import clock
from rft_operator.kueue import Workload
from rft_operator.objects.config import CA_KEY
from rft_operator.objects.names import Owner, controller_uid, queue_labels
from rft_planner.nodes import Node, Taint
from rft_planner.sizes import quantity
from rft_run import wire
from rft_run.config import CONFIG_FILE, GRADER_CONTAINER, TRAINER_CONTAINER, RunConfig
from rft_run.report import ProgressReport

Raw = Mapping[str, Any]
CLAIM = "PersistentVolumeClaim"
_REFUSED_POD = re.compile(r'Error creating: (?:pods "[^"]*" is forbidden: )?')
"""Matches the beginning of the message of a Job's FailedCreate Event. It is removed, because it contains the
name of the pod, which differs between attempts."""


@dataclass(frozen=True)
class Terminated:
    """How a container ended."""

    exit_code: int
    reason: str = ""
    message: str = ""
    at: str = ""
    """The time when the container ended, in RFC 3339 form. Empty if the time is not known."""


@dataclass(frozen=True)
class Waiting:
    """The reason why a container waits to start."""

    reason: str = ""
    message: str = ""


@dataclass(frozen=True)
class Pod:
    """The state of a pod of an RFTJob."""

    name: str
    uid: str
    created: str
    controller: str | None = None
    phase: str = "Pending"
    deleting: bool = False
    disrupted: bool = False
    reason: str = ""
    message: str = ""
    started: str = ""
    """The time when the trainer's container started, in RFC 3339 form. Empty if the container does not run
    now."""
    scheduled: bool = False
    node: str = ""
    ready: bool = True
    """False if the pod's condition Ready has the status False, else true. While the node of a pod does not
    answer, Kubernetes sets this status to False too."""
    unschedulable: str = ""
    """Why the pod has no node, in the words of the scheduler or the API server. Empty if the pod has a node,
    or if no reason is known yet."""
    judged: bool = True
    """Whether the pod has a node, or a condition that says why it has none. If false, the scheduler has not
    looked at the pod yet."""
    scheduler: str = ""
    requests: Mapping[str, float] = field(default_factory=dict)
    """For each resource, the sum of the requests of all containers, native sidecars included. The unit is
    CPUs, bytes or devices."""
    waiting: Waiting | None = None
    trainer: Terminated | None = None
    grader: Terminated | None = None
    """How the grader container ended. ``None`` if it has not ended, or is a native sidecar."""
    beside: tuple[str, ...] = ()
    """Names of the running containers that other programs have added to the pod, such as istio-proxy."""
    report: ProgressReport | None = None

    @property
    def alive(self) -> bool:
        """Whether containers of the pod may still run."""
        return self.phase not in ("Succeeded", "Failed")

    @property
    def failed(self) -> bool:
        """Whether the attempt in this pod failed. Its grader container may still run."""
        return self.phase == "Failed" or (self.trainer is not None and self.trainer.exit_code != 0)

    @property
    def order(self) -> tuple[str, str]:
        """Sort key of the attempts of a run: a pod that was created later is a newer attempt."""
        return self.created, self.uid


@dataclass(frozen=True)
class Child:
    """The state of the child Job of an RFTJob."""

    uid: str
    created: str = ""
    deleting: bool = False
    complete: bool = False
    failed: bool = False
    failed_reason: str = ""
    failed_message: str = ""
    failed_pods: int = 0
    has_failure_policy: bool = False
    backoff_limit: int = 0
    deadline: int | None = None
    queue: tuple[tuple[str, str], ...] = ()
    """The labels of the Job that a queue such as Kueue reads."""
    suspended: bool = False
    """Whether ``spec.suspend`` of the Job is true. A queue or a person sets it, never the operator."""
    node_labels: tuple[tuple[str, str], ...] = ()
    """The labels that the node of the Job's pods must have: those of the plan, of the user, and of the flavor
    that Kueue chose."""
    claims: tuple[str, ...] = ()
    """Names of the PersistentVolumeClaims that the pods mount."""

    @property
    def finished(self) -> bool:
        """Whether the Job is complete or has failed."""
        return self.complete or self.failed


@dataclass(frozen=True)
class Obstacle:
    """The content of one Event about an object that a run needs.

    ``kind``, ``name`` and ``uid`` are those of the object, and ``reason`` and ``message`` those of the Event.
    """

    kind: str
    name: str
    uid: str
    reason: str
    message: str
    at: datetime | None = None
    """The last time when the Event was reported."""
    hinders: bool = True
    """Whether the Event reports a problem. Some Events about a PersistentVolumeClaim report a success."""

    @property
    def about(self) -> str:
        """The key of the object that the Event is about. For a Job or a pod it is the UID. For a claim it is
        ``PersistentVolumeClaim``, a space and the name.
        """
        return f"{CLAIM} {self.name}" if self.kind == CLAIM else self.uid


@dataclass(frozen=True)
class Received:
    """A report that a trainer sent, and the pod that sent it."""

    report: ProgressReport
    pod_uid: str
    pod_created: str

    @property
    def order(self) -> tuple[str, int]:
        """Sort key of reports: the report of a later attempt is greater. The key is the creation time of the
        pod and the number of the attempt.
        """
        return self.pod_created, self.report.run.progress.attempt


@dataclass(frozen=True)
class Observed:
    """The observed state of everything in the cluster that matters for the decision about one RFTJob."""

    child: Child | None = None
    pods: tuple[Pod, ...] = ()
    snapshot: RunConfig | None = None
    config_exists: bool = False
    ca_exists: bool = False
    ca_current: bool = False
    claim_exists: bool = False
    conflicts: tuple[str, ...] = ()
    received: Received | None = None
    baseline: Raw | None = None
    nodes: tuple[Node, ...] = ()
    """The nodes of the cluster. Empty if they are not needed, or cannot be read."""
    workload: Workload | None = None
    """The Kueue Workload of a suspended child Job, or ``None`` if there is none."""
    obstacles: tuple[Obstacle, ...] = ()
    """The current Events about the child Job, its pods and their claims. Empty if the job does not wait for a
    pod."""
    refused: str = ""
    """Why the API server last refused to create a child object. Empty if it did not refuse."""
    last_lines: tuple[str, ...] = ()
    """The last log lines of a stalled trainer. Empty if they are not needed, or cannot be read."""

    @property
    def any_alive(self) -> bool:
        """Whether any pod of this RFTJob may still write to the folder of the run."""
        return any(pod.alive for pod in self.pods)

    @property
    def attempts(self) -> tuple[Pod, ...]:
        """The pods of the current child Job, oldest first. Each pod is one attempt of the run."""
        if self.child is None:
            return ()
        return tuple(pod for pod in self.pods if pod.controller == self.child.uid)


@dataclass(frozen=True)
class RawState:
    """The objects of an RFTJob as the API server returned them. An object that does not exist is ``None``."""

    job: Raw | None = None
    config: Raw | None = None
    ca: Raw | None = None
    claim: Raw | None = None
    pods: tuple[Raw, ...] = ()
    baseline: Raw | None = None


def observe(owner: Owner, raw: RawState, ca_bundle: str | None, received: Received | None) -> Observed:
    """Parse the objects of an RFTJob.

    An object may have the name of a child object, but another owner. It counts as missing, and is listed in
    ``conflicts``.

    - ``ca_bundle``: the text that the ConfigMap of the CA must have, or ``None`` without ingest.
    - ``received``: the last report that the ingest accepted.
    """
    named = {
        f"Job {owner.child}": raw.job,
        f"ConfigMap {owner.child}": raw.config,
        f"ConfigMap {owner.ca}": raw.ca,
    }
    ours = {label: found is not None and _is_ours(found, owner) for label, found in named.items()}
    claim_ours = raw.claim is not None and _is_claim_of(raw.claim, owner)
    conflicts = [label for label, found in named.items() if found is not None and not ours[label]]
    if raw.claim is not None and not claim_ours:
        conflicts.append(f"PersistentVolumeClaim {owner.child}")
    config = raw.config if ours[f"ConfigMap {owner.child}"] else None
    ca = raw.ca if ours[f"ConfigMap {owner.ca}"] else None
    return Observed(
        child=child(raw.job) if raw.job is not None and ours[f"Job {owner.child}"] else None,
        pods=_pods(raw.pods),
        snapshot=_snapshot(config),
        config_exists=config is not None,
        ca_exists=ca is not None,
        ca_current=ca_bundle is None or (ca is not None and _data(ca).get(CA_KEY) == ca_bundle),
        claim_exists=claim_ours,
        conflicts=tuple(conflicts),
        received=received,
        baseline=raw.baseline,
    )


def refreshed(owner: Owner, cached: Observed, job: Raw | None, pods: Iterable[Raw]) -> Observed | None:
    """Return the cached state, with the Job and the pods that were just read.

    Return ``None`` if all children must be read again. This is so if the Job does not exist any more, or if
    an object of another owner has the name of the Job or of another child.
    """
    if job is None or not _is_ours(job, owner) or cached.conflicts:
        return None
    return replace(cached, child=child(job), pods=_pods(pods))


def waits_for_a_node(observed: Observed) -> bool:
    """Return whether a pod that has not ended has no node yet.

    Such a pod may wait for its PersistentVolumeClaim. The operator does not watch claims, so it must read the
    claim again.
    """
    return any(each.alive and not each.scheduled for each in observed.pods)


def with_claim(owner: Owner, observed: Observed, claim: Raw | None) -> Observed | None:
    """Return ``observed`` with the result of a new read of the PersistentVolumeClaim.

    ``claim`` is the claim that was read, or ``None`` if it does not exist. Return ``None`` if the claim has
    another owner: then all children must be read again.
    """
    if claim is not None and not _is_claim_of(claim, owner):
        return None
    return replace(observed, claim_exists=claim is not None)


def _pods(raw: Iterable[Raw]) -> tuple[Pod, ...]:
    """Parse pods, and return them oldest first."""
    return tuple(sorted(map(pod, raw), key=lambda each: each.order))


def _is_ours(raw: Raw, owner: Owner) -> bool:
    return controller_uid(dict(raw)) == owner.uid


def _is_claim_of(raw: Raw, owner: Owner) -> bool:
    # A claim that must outlive the RFTJob has no owner reference. It is recognized by its labels.
    return _is_ours(raw, owner) or _is_labelled(raw, owner)


def _is_labelled(raw: Raw, owner: Owner) -> bool:
    labels = raw.get("metadata", {}).get("labels") or {}
    return all(labels.get(name) == value for name, value in owner.labels.items())


def _data(raw: Raw) -> Mapping[str, str]:
    return raw.get("data") or {}


def _snapshot(config: Raw | None) -> RunConfig | None:
    if config is None:
        return None
    try:
        return wire.read(RunConfig, _data(config).get(CONFIG_FILE, ""))
    except ValidationError:
        # A newer release of the operator wrote the snapshot, for a trainer of that release. This release
        # cannot read it.
        return None


def _pod_spec(job_spec: Raw) -> Raw:
    spec: Raw = (job_spec.get("template") or {}).get("spec") or {}
    return spec


def child(raw: Raw) -> Child:
    """Parse a Job."""
    metadata, spec, status = raw["metadata"], raw.get("spec", {}), raw.get("status", {})
    failed = _condition(status, "Failed")
    return Child(
        uid=metadata["uid"],
        created=metadata.get("creationTimestamp", ""),
        deleting="deletionTimestamp" in metadata,
        complete=_condition(status, "Complete") is not None,
        failed=failed is not None,
        failed_reason=(failed or {}).get("reason", ""),
        failed_message=(failed or {}).get("message", ""),
        failed_pods=status.get("failed", 0),
        has_failure_policy="podFailurePolicy" in spec,
        backoff_limit=spec.get("backoffLimit", 0),
        deadline=spec.get("activeDeadlineSeconds"),
        queue=queue_labels(metadata),
        suspended=spec.get("suspend") is True,
        node_labels=tuple(sorted((_pod_spec(spec).get("nodeSelector") or {}).items())),
        claims=_claims(_pod_spec(spec)),
    )


def obstacle(raw: Raw) -> Obstacle:
    """Parse an Event."""
    about, series = raw.get("involvedObject") or {}, raw.get("series") or {}
    times = (series.get("lastObservedTime"), raw.get("lastTimestamp"), raw.get("eventTime"))
    return Obstacle(
        about.get("kind") or "",
        about.get("name") or "",
        about.get("uid") or "",
        raw.get("reason") or "",
        _REFUSED_POD.sub("", (raw.get("message") or "").strip(), count=1),
        next((moment for text in times if (moment := clock.parse(text)) is not None), None),
        # A claim without a StorageClass is reported by an Event of the type Normal.
        raw.get("type") != "Normal" or raw.get("reason") == "FailedBinding",
    )


def _claims(pod_spec: Raw) -> tuple[str, ...]:
    sources = [volume.get("persistentVolumeClaim") or {} for volume in pod_spec.get("volumes") or []]
    return tuple(sorted({source["claimName"] for source in sources if "claimName" in source}))


def pod(raw: Raw) -> Pod:
    """Parse a pod."""
    metadata, status = raw["metadata"], raw.get("status", {})
    states = _states(status.get("containerStatuses"))
    trainer = _terminated(states.get(TRAINER_CONTAINER, {}))
    unscheduled = _condition(status, "PodScheduled", "False") or {}
    node_name = raw.get("spec", {}).get("nodeName") or ""
    return Pod(
        name=metadata["name"],
        uid=metadata["uid"],
        created=metadata.get("creationTimestamp", ""),
        controller=controller_uid(dict(raw)),
        phase=status.get("phase", "Pending"),
        deleting="deletionTimestamp" in metadata,
        disrupted=_condition(status, "DisruptionTarget") is not None,
        reason=status.get("reason", ""),
        message=status.get("message", ""),
        started=(states.get(TRAINER_CONTAINER, {}).get("running") or {}).get("startedAt") or "",
        scheduled=bool(node_name),
        node=node_name,
        ready=_condition(status, "Ready", "False") is None,
        # The reason may also be SchedulingGated or SchedulerError.
        unschedulable="" if node_name else unscheduled.get("message") or unscheduled.get("reason") or "",
        judged=bool(node_name or unscheduled),
        scheduler=raw.get("spec", {}).get("schedulerName") or "",
        requests=_requests(raw.get("spec", {})),
        waiting=_waiting([*_states(status.get("initContainerStatuses")).values(), *states.values()]),
        trainer=trainer,
        grader=_terminated(states.get(GRADER_CONTAINER, {})),
        beside=tuple(
            sorted(name for name, state in states.items() if name not in _OWN and "running" in state)
        ),
        report=_report(trainer),
    )


_OWN = (TRAINER_CONTAINER, GRADER_CONTAINER)


def _states(statuses: Iterable[Raw] | None) -> dict[str, Raw]:
    return {each["name"]: each.get("state", {}) for each in statuses or []}


def _requests(spec: Raw) -> dict[str, float]:
    found: dict[str, float] = {}
    sidecars = [each for each in spec.get("initContainers") or [] if each.get("restartPolicy") == "Always"]
    for container in [*sidecars, *(spec.get("containers") or [])]:
        asked = (container.get("resources") or {}).get("requests") or {}
        for name, amount in asked.items():
            found[name] = found.get(name, 0.0) + _amount(amount)
    return found


def node(raw: Raw) -> Node:
    """Parse a node."""
    metadata, spec, status = raw["metadata"], raw.get("spec", {}), raw.get("status", {})
    taints = [Taint(t["key"], t.get("value", ""), t["effect"]) for t in spec.get("taints") or []]
    labels = metadata.get("labels") or {}
    return Node(
        name=metadata["name"],
        # Thousands of nodes have the same labels and resources, so each string is kept once.
        labels={intern(name): intern(value) for name, value in labels.items()},
        allocatable={intern(name): _amount(text) for name, text in (status.get("allocatable") or {}).items()},
        taints=tuple(taints),
        schedulable=not spec.get("unschedulable") and _condition(status, "Ready") is not None,
        silent_since=_silent_since(status),
    )


def _silent_since(status: Raw) -> str:
    for value in ("False", "Unknown"):
        condition = _condition(status, "Ready", value)
        if condition is not None:
            return str(condition.get("lastTransitionTime") or "an unknown time")
    return ""


def _amount(text: str) -> float:
    """Return a Kubernetes quantity as a number, or 0 if it cannot be parsed."""
    try:
        return quantity(text)
    except ValueError:
        return 0.0


def _condition(status: Raw, kind: str, value: str = "True") -> dict[str, Any] | None:
    for condition in status.get("conditions") or []:
        if condition.get("type") == kind and condition.get("status") == value:
            return dict(condition)
    return None


def _terminated(state: Raw) -> Terminated | None:
    found = state.get("terminated")
    if not found:
        return None
    return Terminated(
        found.get("exitCode", 0),
        found.get("reason", ""),
        found.get("message", ""),
        found.get("finishedAt") or "",
    )


def _waiting(states: Iterable[Raw]) -> Waiting | None:
    """Return the reason why a container waits. If several containers wait, return the reason of the first
    one.

    A container that only waits to be created does not count. Return None if no other container waits.
    """
    for state in states:
        found = state.get("waiting") or {}
        if found.get("reason") not in (None, "", "ContainerCreating", "PodInitializing"):
            return Waiting(found["reason"], found.get("message", ""))
    return None


def _report(trainer: Terminated | None) -> ProgressReport | None:
    """Return the report in the trainer's termination message, or None if there is none."""
    if trainer is None or not trainer.message:
        return None
    try:
        return wire.read(ProgressReport, trainer.message)
    except ValidationError:
        return None
