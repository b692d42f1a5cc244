"""The Events of Kubernetes tell why a pod does not start. The message names the field to change."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rft_api.validation import parse
from rft_operator.clock import rfc3339
from rft_operator.cluster import ClusterError
from rft_operator.events import WarningEvents
from rft_operator.observe import Observed, Obstacle, Pod, Terminated, Waiting, child, obstacle, pod
from rft_operator.obstacles import blocked, current, is_current, needed
from tests.unit.reconcile_support import CHILD, NOW, POD, STARTED, once, rftjob, snapshot

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

    ``times`` has the fields of the Event that are times. If there are none, ``lastTimestamp`` is ``NOW``.
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
            "set spec.resources.cpuLimit, or give the namespace a LimitRange with a default for limits.cpu.",
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
            "correct what spec.template adds to the pod.",
        ),
        (
            'Error creating: admission webhook "policy.example.com" denied the request: no owner label',
            "The policy policy.example.com of this cluster refuses the object: do what its message says",
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
            "The pod starts by itself once the other node has released the volume, or correct"
            " spec.storage.persistentVolumeClaim.claimName.",
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


def test_a_claim_that_fits_no_volume_names_the_field_of_the_claim() -> None:
    event = raw(
        'Cannot bind to requested volume "v": incompatible accessMode',
        "PersistentVolumeClaim",
        "VolumeMismatch",
    )
    text = said(event, replace(WAITS, scheduled=False))
    assert text.endswith("Change the claim, or correct spec.storage.persistentVolumeClaim.claimName.")


def test_an_unschedulable_pod_says_that_no_program_makes_its_volume() -> None:
    event = raw("Waiting for a volume to be created", "PersistentVolumeClaim", "ExternalProvisioning")
    waits = replace(
        WAITS,
        scheduled=False,
        node="",
        unschedulable="0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.",
    )
    state = replace(STARTED, child=CLAIMED, pods=(waits,), obstacles=(obstacle({**event, "type": "Normal"}),))
    message = once(rftjob(), state).status["message"]
    assert "The claim runs gets no volume yet: ExternalProvisioning: Waiting for a volume" in message
    assert message.endswith("change spec.storage.persistentVolumeClaim.claimName.")


def test_a_resource_claim_that_cannot_be_created_is_told_however_long_ago() -> None:
    text = 'PodResourceClaim gpu: resourceclaimtemplate.resource.k8s.io "gpus" not found'
    hours_ago = rfc3339(NOW - timedelta(hours=2))
    event = obstacle(raw(text, reason="FailedResourceClaimCreation", lastTimestamp=hours_ago))
    assert current([event], NOW) == [event]
    found = blocked(SPEC, CLAIMED, replace(WAITS, scheduled=False), [event])
    assert found is not None
    assert "Create the ResourceClaimTemplate gpus" in found.message
    assert blocked(SPEC, CLAIMED, WAITS, [event]) is None, "the pod has a node, so it has its claims"


def test_a_volume_attached_elsewhere_is_told_as_long_as_the_kubelet_waits() -> None:
    attach = obstacle(
        raw(
            'Multi-Attach error for volume "v" Volume is already used by pod(s) holder',
            reason="FailedAttachVolume",
            lastTimestamp=rfc3339(NOW - timedelta(minutes=20)),
        )
    )
    mount = obstacle(
        raw(
            "Unable to attach or mount volumes: unmounted volumes=[runs], unattached volumes=[], failed to"
            " process volumes=[]: timed out waiting for the condition"
        )
    )
    assert current([attach], NOW) == [], "Kubernetes may have attached the volume since then"
    found = blocked(SPEC, CLAIMED, WAITS, current([attach, mount], NOW))
    assert found is not None
    assert "Multi-Attach error" in found.message, "the newer Event does not name the cause"
    assert "timed out" in said(raw(mount.message)), "the only Event is shown, even if it names no cause"


def test_an_image_without_its_pull_secret_names_the_secret() -> None:
    spec = {"imagePullSecrets": [{"name": "pull"}], "image": "registry.example.com/a:1"}
    event = obstacle(
        raw(
            "Unable to retrieve some image pull secrets (pull); attempting to pull the image may not"
            " succeed.",
            reason="FailedToRetrieveImagePullSecret",
        )
    )
    waits = replace(WAITS, waiting=Waiting("ErrImagePull", "401 Unauthorized"))
    document = rftjob(template=spec)
    state = replace(STARTED, snapshot=snapshot(document), pods=(waits,), obstacles=(event,))
    message = once(document, state).status["message"]
    assert message.endswith("Create the Secret pull, or correct spec.template.imagePullSecrets[0].name.")
    without = once(document, replace(state, obstacles=())).status["message"]
    assert "401 Unauthorized. Name a Secret for the registry in spec.template.imagePullSecrets" in without


def unjudged(**spec: Any) -> tuple[dict[str, Any], Any]:
    """Return a job and its state. No scheduler has tried to place its pod."""
    made = {
        "metadata": {
            "name": "sums-x-1",
            "uid": "pod-1",
            "creationTimestamp": rfc3339(NOW),
            "ownerReferences": [],
        },
        "spec": {"schedulerName": "nobody"},
    }
    document = rftjob(template={"schedulerName": "nobody", **spec})
    waits = replace(pod(made), controller="job-1")
    return document, replace(STARTED, snapshot=snapshot(document), pods=(waits,))


def test_a_pod_at_which_no_scheduler_looks_is_told_after_some_seconds() -> None:
    document, state = unjudged()
    first = once(document, state, NOW + timedelta(seconds=5))
    assert first.status["message"] == "Waiting for the pod."
    assert first.requeue_after == pytest.approx(10.0)
    late = once(document, state, NOW + timedelta(seconds=15)).status
    assert late["message"].startswith("The scheduler nobody has not looked at pod sums-x-1 since")
    assert late["message"].endswith("runs in the cluster, or correct spec.template.schedulerName.")
    assert late["phase"] == "Pending"


def test_a_pod_whose_resource_claim_is_missing_names_the_claim() -> None:
    document, state = unjudged(resourceClaims=[{"name": "gpu", "resourceClaimName": "gpus"}])
    message = once(document, state, NOW + timedelta(seconds=15)).status["message"]
    assert message.endswith(
        "Find out whether the ResourceClaim gpus exists, or correct"
        " spec.template.resourceClaims[0].resourceClaimName."
    )


def test_any_reason_of_the_condition_pod_scheduled_is_told() -> None:
    gated = {
        "metadata": {"name": "a", "uid": "u"},
        "spec": {"schedulerName": "default-scheduler"},
        "status": {
            "conditions": [
                {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "SchedulingGated",
                    "message": "Scheduling is blocked due to non-empty scheduling gates",
                }
            ]
        },
    }
    assert pod(gated).unschedulable == "Scheduling is blocked due to non-empty scheduling gates"
    assert pod(gated).judged
    assert not pod({**gated, "status": {}}).judged
    assert pod({**gated, "status": {}, "spec": {"nodeName": "node-1"}}).judged


def test_a_refused_child_object_names_the_field_to_change() -> None:
    refused = (
        "PersistentVolumeClaim sums-x cannot be created: 403: exceeded quota: few, requested:"
        " requests.storage=1Gi, used: requests.storage=0, limited: requests.storage=1Mi."
    )
    document = rftjob(storage={"claimTemplate": {"size": "1Gi"}})
    message = once(document, Observed(refused=refused)).status["message"]
    assert "limited: requests.storage=1Mi. Lower spec.storage.claimTemplate.size" in message
    assert message.endswith("The operator tries again.")


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


def reported(message: str, **times: Any) -> dict[str, Any]:
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
    server.events = [reported("no such ConfigMap")]
    assert server.cache.poll() == [KEY]
    assert server.reads == ["team"], "all jobs of a namespace must share one request"
    assert [each.message for each in server.cache.of(KEY, frozenset({"pod-1"}))] == ["no such ConfigMap"]
    server.events = [reported("no such ConfigMap")]
    assert server.cache.poll() == [], "a repeated Event must not requeue the job"
    server.events = []
    assert server.cache.poll() == [KEY]
    assert server.cache.of(KEY, frozenset({"pod-1"})) == ()


def test_events_that_cannot_be_read_are_logged_once_and_change_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Server()
    server.cache.of(KEY, frozenset({"pod-1"}))
    server.events = [reported("no such ConfigMap")]
    server.cache.poll()
    server.broken = True
    assert [server.cache.poll(), server.cache.poll()] == [[], []]
    assert caplog.text.count("Events cannot be read") == 1
    assert len(server.cache.of(KEY, frozenset({"pod-1"}))) == 1


def test_events_of_a_pod_that_is_not_needed_any_more_are_not_returned() -> None:
    server = Server()
    server.cache.of(KEY, frozenset({"pod-1"}))
    server.events = [reported("no such ConfigMap")]
    server.cache.poll()
    assert server.cache.of(KEY, frozenset({"pod-9"})) == ()


def test_an_event_without_a_time_counts() -> None:
    assert is_current(Obstacle("Pod", "a", "u", "FailedMount", "m"), NOW)
