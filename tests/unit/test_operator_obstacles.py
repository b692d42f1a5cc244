"""The Events of Kubernetes tell why a pod does not start. The message names the field to change."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rft_api.validation import parse
from rft_operator.clock import rfc3339
from rft_operator.cluster import ClusterError
from rft_operator.events import WarningEvents
from rft_operator.observe import Obstacle, Pod, Terminated, child, obstacle
from rft_operator.obstacles import advised, blocked, is_current, needed
from tests.unit.reconcile_support import CHILD, NOW, POD, STARTED, once, rftjob

KEY = ("team", "sums")
SPEC = parse(
    rftjob(
        template={"serviceAccountName": "reader"}, storage={"persistentVolumeClaim": {"claimName": "runs"}}
    )
).spec
WAITS = replace(POD, phase="Pending", node="node-1")
CLAIMED = replace(CHILD, claims=("runs",))


def raw(message: str, kind: str = "Pod", reason: str = "FailedMount", **times: Any) -> dict[str, Any]:
    """Return an Event about an object of kind ``kind``, as an API server returns it.

    ``times`` are the time fields of the Event. Without them, ``lastTimestamp`` is ``NOW``.
    """
    about = {
        "Pod": ("sums-x-1", "pod-1"),
        "Job": ("sums-x", "job-1"),
        "PersistentVolumeClaim": ("runs", "claim-1"),
    }
    name, uid = about[kind]
    return {
        "involvedObject": {"kind": kind, "name": name, "uid": uid},
        "reason": reason,
        "message": message,
        "type": "Warning",
        **(times or {"lastTimestamp": rfc3339(NOW)}),
    }


def said(event: dict[str, Any], pod: Pod | None = WAITS) -> str:
    """Return the message about a pod that does not start, if this Event is the only one."""
    found = blocked(SPEC, CLAIMED, pod, [obstacle(event)])
    assert found is not None
    return found.message


FORBIDDEN = 'Error creating: pods "sums-x-a" is forbidden:'
QUOTA = (
    'Error creating: pods "sums-x-k2f9d" is forbidden: exceeded quota: few, requested: limits.memory=6Gi,'
    "requests.nvidia.com/gpu=2, used: limits.memory=0,requests.nvidia.com/gpu=0,"
    " limited: limits.memory=1Gi,requests.nvidia.com/gpu=1"
)


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        (QUOTA, "Lower spec.resources.memory and spec.resources.gpus, wait until other objects are gone, or"),
        (QUOTA, "cannot create its pod: exceeded quota: few, requested: limits.memory=6Gi"),
        (
            f"{FORBIDDEN} exceeded quota: few, requested: pods=1, used: pods=5, limited: pods=5",
            "5. Wait until other objects are gone, or raise the ResourceQuota few.",
        ),
        (
            'Error creating: pods "sums-x-a" is forbidden: failed quota: cpus: must specify limits.cpu for:'
            " grader,trainer",
            "set spec.resources.cpuLimit, or give the namespace a LimitRange with a default for it.",
        ),
        (
            'Error creating: pods "sums-x-a" is forbidden: error looking up service account team/reader:'
            ' serviceaccount "reader" not found',
            "Create the ServiceAccount reader, or correct spec.template.serviceAccountName.",
        ),
        (
            f"{FORBIDDEN} maximum memory usage per Container is 1Gi, but limit is 6Gi",
            "Lower spec.resources.memory to 1Gi, or change the namespace's LimitRange.",
        ),
        (
            f"{FORBIDDEN} minimum cpu usage per Container is 2, but request is 500m",
            "Raise spec.resources.cpu to 2, or change the namespace's LimitRange.",
        ),
        (
            'Error creating: pods "a" is forbidden: violates PodSecurity "restricted:latest": seccompProfile',
            "see what spec.template adds to the pod.",
        ),
        (
            'Error creating: admission webhook "policy.example.com" denied the request: no owner label',
            "The policy policy.example.com of this cluster refuses this: ask who maintains the policy.",
        ),
        ("Error creating: something new", "The child Job cannot create its pod: something new."),
    ],
)
def test_a_job_that_cannot_create_its_pod_says_why_and_what_to_change(message: str, wanted: str) -> None:
    found = blocked(SPEC, CLAIMED, None, [obstacle(raw(message, "Job", "FailedCreate"))])
    assert found is not None
    assert found.reason == "FailedCreate"
    assert wanted in found.message
    assert "sums-x-" not in found.message, "the pod's name changes with each attempt"


TWO_CLAIMS = parse(
    rftjob(
        model={"name": "SmolLM2-135M", "cache": {"claimTemplate": {"size": "40Gi"}}},
        storage={"claimTemplate": {"size": "5Gi"}},
        template={"volumes": [{"name": "e", "mountPath": "/data/train", "configMap": "rows"}]},
    )
).spec
FULL = "exceeded quota: few, requested: {0}={1}, used: {0}=0, limited: {0}=1Gi."


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        (FULL.format("requests.storage", "5Gi"), "Lower spec.storage.claimTemplate.size, wait"),
        (FULL.format("requests.storage", "40Gi"), "Lower spec.model.cache.claimTemplate.size, wait"),
        (FULL.format("requests.storage", "7Gi"), "Lower spec.storage.claimTemplate.size, wait"),
        (
            FULL.format("fast.storageclass.storage.k8s.io/requests.storage", "5Gi"),
            "Lower spec.storage.claimTemplate.size, wait",
        ),
        (FULL.format("count/jobs.batch", "1"), "Wait until other objects are gone, or raise"),
        (
            "maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 40Gi.",
            "Lower spec.model.cache.claimTemplate.size to 1Gi, or change the namespace's LimitRange.",
        ),
        (
            'Job.batch "x" is invalid: spec.template.spec.containers[0].volumeMounts[5].mountPath: Invalid'
            ' value: "/data/train": must be unique.',
            "Correct spec.template.volumes[0].mountPath.",
        ),
        ('Job.batch "x" is invalid: metadata.name: Invalid value: "x": too long.', ""),
    ],
)
def test_a_refused_job_or_claim_is_explained_by_the_field_to_change(message: str, wanted: str) -> None:
    said = advised(message, TWO_CLAIMS)
    assert said.startswith(wanted)
    assert bool(said) is bool(wanted)


@pytest.mark.parametrize(
    ("reason", "message", "wanted"),
    [
        (
            "FailedMount",
            'MountVolume.SetUp failed for volume "dataset" : configmap "rows" not found',
            "Create the ConfigMap rows, or correct spec.dataset.configMap.name.",
        ),
        (
            "FailedMount",
            'MountVolume.SetUp failed for volume "secrets" : references non-existent secret key: token',
            "Add the key token.",
        ),
        ("FailedMount", "couldn't find key token in Secret team/hf", "Add the key token."),
        (
            "FailedMount",
            'MountVolume.SetUp failed for volume "dataset" : configmap references non-existent config key:'
            " train.jsonl",
            "Add the key train.jsonl, or correct spec.dataset.configMap.key.",
        ),
        (
            "FailedAttachVolume",
            'Multi-Attach error for volume "pvc-1" Volume is already exclusively attached to one node',
            "The pod starts by itself once the other node has released the volume.",
        ),
        (
            "FailedCreatePodSandBox",
            "Failed to create pod sandbox: plugin type=cilium failed",
            "The pod cannot start on node node-1: FailedCreatePodSandBox: Failed to create pod sandbox",
        ),
    ],
)
def test_a_pod_that_cannot_start_says_why_and_what_to_change(reason: str, message: str, wanted: str) -> None:
    assert wanted in said(raw(message, reason=reason))


def test_a_claim_without_a_volume_says_why() -> None:
    event = raw('storageclass.storage.k8s.io "fast" not found', "PersistentVolumeClaim", "ProvisioningFailed")
    text = said(event, replace(WAITS, scheduled=False))
    assert text.startswith("The claim runs gets no volume: ProvisioningFailed:")
    assert text.endswith("Create the StorageClass fast.")
    unset = "no persistent volumes available for this claim and no storage class is set"
    assert "spec.storage.claimTemplate.storageClassName" in said(
        raw(unset, "PersistentVolumeClaim", "FailedBinding"), replace(WAITS, scheduled=False)
    )


def test_a_claim_that_is_provisioned_now_is_no_obstacle_any_more() -> None:
    old = raw(
        'storageclass "fast" not found',
        "PersistentVolumeClaim",
        "ProvisioningFailed",
        lastTimestamp=rfc3339(NOW - timedelta(hours=1)),
    )
    new = raw("waiting for a volume to be created", "PersistentVolumeClaim", "ExternalProvisioning")
    pod = replace(WAITS, scheduled=False)
    assert blocked(SPEC, CLAIMED, pod, [obstacle(old)]) is not None
    assert is_current(obstacle(old), NOW)
    assert blocked(SPEC, CLAIMED, pod, [obstacle(old), obstacle({**new, "type": "Normal"})]) is None


def test_a_claim_is_no_obstacle_for_a_pod_that_has_a_node() -> None:
    old = raw("no volume", "PersistentVolumeClaim", "FailedBinding")
    assert blocked(SPEC, CLAIMED, WAITS, [obstacle(old)]) is None


@pytest.mark.parametrize("reason", ["DNSConfigForming", "FailedToRetrieveImagePullSecret", "PolicyViolation"])
def test_a_warning_that_keeps_no_pod_from_starting_says_nothing(reason: str) -> None:
    event = raw("Nameserver limits were exceeded", reason=reason)
    assert blocked(SPEC, CLAIMED, WAITS, [obstacle(event)]) is None


def test_a_refusal_from_before_the_last_pod_says_nothing_while_the_job_waits_for_a_retry() -> None:
    refused = obstacle(raw(QUOTA, "Job", "FailedCreate", lastTimestamp="2026-11-22T17:50:00Z"))
    failure = Terminated(1, "Error", "boom")
    ended = replace(POD, phase="Failed", created="2026-11-22T17:50:05Z", trainer=failure)
    waits = replace(STARTED, pods=(ended,), obstacles=(refused,))
    assert once(rftjob(), waits).status["message"].startswith("Attempt 1 failed")
    later = replace(waits, obstacles=(replace(refused, at=NOW),))
    assert "exceeded quota" in once(rftjob(), later).status["message"]


def test_amounts_of_the_graders_container_are_not_said_to_be_the_users() -> None:
    message = f"{FORBIDDEN} minimum cpu usage per Container is 200m, but request is 100m"
    found = blocked(SPEC, CLAIMED, None, [obstacle(raw(message, "Job", "FailedCreate"))])
    assert found is not None
    assert found.message.endswith("Change the namespace's LimitRange.")


def test_namespaces_in_which_jobs_wait_for_long_are_read_seldom() -> None:
    now = [0.0]
    reads: list[str] = []

    def read(namespace: str) -> list[dict[str, Any]]:
        reads.append(namespace)
        return []

    cache = WarningEvents(read, lambda: now[0])
    cache.of(KEY, frozenset({"pod-1"}))
    for now[0] in range(0, 60, 5):
        cache.poll()
    assert len(reads) == 12
    for now[0] in range(60, 120, 5):
        cache.poll()
    assert len(reads) == 14
    cache.of(KEY, frozenset({"pod-2"}))
    cache.poll()
    assert len(reads) == 15, "the Events of another pod must be read at once"


def test_the_newest_event_counts() -> None:
    old = raw("first", lastTimestamp=rfc3339(NOW - timedelta(seconds=60)))
    new = raw(
        "second", series={"lastObservedTime": rfc3339(NOW)}, eventTime=rfc3339(NOW - timedelta(hours=1))
    )
    found = blocked(SPEC, CLAIMED, WAITS, [obstacle(new), obstacle(old)])
    assert found is not None
    assert "second" in found.message


def test_an_old_event_of_a_pod_does_not_count_but_that_of_a_job_does() -> None:
    long_ago = rfc3339(NOW - timedelta(seconds=301))
    assert not is_current(obstacle(raw("gone", lastTimestamp=long_ago)), NOW)
    assert is_current(obstacle(raw("here", lastTimestamp=rfc3339(NOW - timedelta(seconds=149)))), NOW)
    assert is_current(obstacle(raw("quota", "Job", "FailedCreate", lastTimestamp=long_ago)), NOW)


def test_events_of_other_objects_and_of_the_scheduler_say_nothing() -> None:
    other = raw("elsewhere")
    other["involvedObject"]["uid"] = "pod-2"
    scheduler = raw("0/1 nodes are available", reason="FailedScheduling")
    assert blocked(SPEC, CLAIMED, WAITS, [obstacle(other), obstacle(scheduler)]) is None


def test_only_a_job_that_waits_for_its_pod_needs_events() -> None:
    assert needed(CLAIMED, [WAITS]) == {"job-1", "pod-1", "PersistentVolumeClaim runs"}
    assert needed(CLAIMED, []) == {"job-1", "PersistentVolumeClaim runs"}
    others = (
        replace(CLAIMED, suspended=True),
        replace(CLAIMED, deleting=True),
        replace(CLAIMED, complete=True),
        replace(CLAIMED, failed=True),
    )
    for other in others:
        assert not needed(other, [WAITS])
    assert not needed(CLAIMED, [replace(WAITS, phase="Running")])
    assert not needed(None, [])


def test_the_claims_of_a_job_are_read_from_its_pod_template() -> None:
    volumes = [
        {"name": "run", "persistentVolumeClaim": {"claimName": "runs"}},
        {"name": "tmp", "emptyDir": {}},
    ]
    job = {"metadata": {"uid": "u"}, "spec": {"template": {"spec": {"volumes": volumes}}}}
    assert child(job).claims == ("runs",)


def test_the_status_says_what_an_event_says_until_the_pod_runs() -> None:
    refused = obstacle(raw(QUOTA, "Job", "FailedCreate"))
    waits = once(rftjob(), replace(STARTED, obstacles=(refused,)))
    assert waits.status["phase"] == "Pending"
    assert waits.status["message"].startswith("The child Job cannot create its pod: exceeded quota: few")
    assert [note.reason for note in waits.notes if note.warning] == ["FailedCreate"]
    mount = obstacle(raw('MountVolume.SetUp failed for volume "d" : configmap "rows" not found'))
    starts = once(rftjob(waits.status), replace(STARTED, pods=(WAITS,), obstacles=(refused, mount)))
    assert starts.status["phase"] == "Starting"
    assert "Create the ConfigMap rows" in starts.status["message"]
    runs = once(rftjob(starts.status), replace(STARTED, pods=(POD,)))
    assert runs.status["message"] == "The trainer prepares its model and data."


class Server:
    """A fake API server that returns the same Events for every namespace.

    If ``broken`` is true, it refuses every request.
    """

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.reads: list[str] = []
        self.broken = False
        self.cache = WarningEvents(self._read)

    def _read(self, namespace: str) -> list[dict[str, Any]]:
        self.reads.append(namespace)
        if self.broken:
            raise ClusterError(403, "events is forbidden")
        return self.events


def current(message: str, **times: Any) -> dict[str, Any]:
    return raw(message, **(times or {"lastTimestamp": rfc3339(datetime.now(UTC))}))


def test_without_a_waiting_job_no_events_are_read() -> None:
    server = Server()
    assert server.cache.poll() == []
    server.cache.of(KEY, frozenset({"pod-1"}))
    server.cache.of(KEY, frozenset())
    assert server.cache.poll() == []
    assert server.reads == []


def test_a_job_is_decided_again_when_its_events_change() -> None:
    server = Server()
    other = ("team", "other")
    server.cache.of(KEY, frozenset({"pod-1"}))
    server.cache.of(other, frozenset({"pod-2"}))
    server.events = [current("no such ConfigMap")]
    assert server.cache.poll() == [KEY]
    assert server.reads == ["team"], "all jobs of a namespace must share one request"
    assert [each.message for each in server.cache.of(KEY, frozenset({"pod-1"}))] == ["no such ConfigMap"]
    server.events = [current("no such ConfigMap")]
    assert server.cache.poll() == [], "a repeated Event must not requeue the job"
    server.events = []
    assert server.cache.poll() == [KEY]
    assert server.cache.of(KEY, frozenset({"pod-1"})) == ()


def test_events_that_cannot_be_read_are_logged_once_and_change_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Server()
    server.cache.of(KEY, frozenset({"pod-1"}))
    server.events = [current("no such ConfigMap")]
    server.cache.poll()
    server.broken = True
    assert [server.cache.poll(), server.cache.poll()] == [[], []]
    assert caplog.text.count("Events cannot be read") == 1
    assert len(server.cache.of(KEY, frozenset({"pod-1"}))) == 1


def test_events_of_a_pod_that_is_not_needed_any_more_are_not_returned() -> None:
    server = Server()
    server.cache.of(KEY, frozenset({"pod-1"}))
    server.events = [current("no such ConfigMap")]
    server.cache.poll()
    assert server.cache.of(KEY, frozenset({"pod-9"})) == ()


def test_an_event_without_a_time_counts() -> None:
    assert is_current(Obstacle("Pod", "a", "u", "FailedMount", "m"), NOW)
