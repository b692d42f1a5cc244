"""If something prevents a job from starting, the status says so within 30 seconds.

The message names the cause, and the field to change or what to do. The message disappears after the cause is
removed. In each case a real part of Kubernetes refuses something: the API server, a controller, the scheduler
or the kubelet. All cases run at the same time.

``pytest tests/e2e/test_obstacles.py`` prints a table of the cases.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import yaml

from tests.kubectl import Kubectl, Object
from tests.tables import table
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

TOLD_SECONDS = 30.0
"""Time limit in seconds from the creation of a job until its status names the cause, on an idle machine."""
BUSY = 3.0
"""How many times this limit a status may take here. `make test` runs other tests at the same time, and then
kubelets and the scheduler report late: on a slow machine the statuses came after up to 43 s.
"""
CLEARED_SECONDS = 300.0
"""Time limit in seconds from the removal of what prevents a job's start until the message about it is gone.

It is long, because the Job controller waits longer after each failed attempt to create a pod.
"""
SHARED = "rft-obstacles"
"""Namespace of all cases that do not need one of their own. It is also the prefix of all other names."""
CLUSTER_WIDE = frozenset(
    (
        "CSIDriver",
        "MutatingAdmissionPolicy",
        "MutatingAdmissionPolicyBinding",
        "Namespace",
        "Node",
        "PersistentVolume",
        "PriorityClass",
        "RuntimeClass",
        "StorageClass",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
        "ValidatingWebhookConfiguration",
    )
)
"""Kinds of objects that are in no namespace."""
NOWHERE = {"nodeSelector": {"rft.dev/none": "here"}}
"""Resources of a job whose pod fits on no node. They are for cases in which no pod needs to start."""
SMALL = {"gpus": 0, "cpu": "50m", "memory": "64Mi"}
"""Resources of a job so small that many pods fit on one node at the same time."""
WAITS = {**SMALL, **NOWHERE}
HAS_OWNER = "has(object.metadata.labels) && 'owner' in object.metadata.labels"
"""CEL expression: whether an object has the label ``owner``. It may have no labels at all."""
NO_IMAGE = {"image": "registry.invalid/none:1"}
"""An image that cannot be pulled, so a pod with this image does not train.

The kubelet mounts the pod's volumes before it pulls the image.
"""


@dataclass(frozen=True)
class Case:
    """A job that cannot start, the objects that prevent this, and words that the status message must have.

    What prevents the start is called the cause.
    """

    name: str
    change: str
    """Text that the message must have. It says what to change: a field of the spec, or another object."""
    says: tuple[str, ...]
    """Further texts that the message must have. They name the cause."""
    spec: Object = field(default_factory=dict)
    """Fields of the job's spec that replace the usual ones."""
    objects: tuple[Object, ...] = ()
    """Objects that are applied before the job."""
    alone: bool = False
    """Whether the case has its own namespace, because its objects affect all jobs of a namespace."""
    probe: str = ""
    """Kind of the objects that the case's policy or webhook refuses. Empty: the case has neither.

    They have no effect in the first moments. So the job is created only after the API server has refused an
    object of this kind."""
    mend: tuple[Object, ...] = ()
    """Objects that are applied to remove what prevents the job's start."""
    gone: tuple[Object, ...] = ()
    """Objects that are deleted to remove what prevents the job's start. If this is empty, ``objects`` are
    deleted. Nothing is deleted if ``mend``, ``patch`` or ``resume`` is set."""
    patch: Object = field(default_factory=dict)
    """Changes of the spec that let the job start. They are for a case in which it has no child Job yet."""
    resume: Object = field(default_factory=dict)
    """Changes of the spec that let the job start. They are for a case in which it has a child Job. The job
    is suspended first, because these fields can change only while it is suspended."""

    @property
    def job(self) -> str:
        """Name of the RFTJob."""
        return self.name.lower().replace(" ", "-")

    @property
    def namespace(self) -> str:
        """Namespace of the RFTJob."""
        return own_namespace(self.name) if self.alone else SHARED

    def is_told(self, status: Mapping[str, Any]) -> bool:
        """Return whether the status message names the cause and what to change."""
        message = str(status.get("message") or "")
        return all(part in message for part in (self.change, *self.says))


def own_namespace(name: str) -> str:
    """Return the namespace that only the case with this name has."""
    return f"rft-obstacle-{name.lower().replace(' ', '-')}"


def _object(kind: str, name: str, api: str = "v1", **rest: Any) -> Object:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name}, **rest}


def _quota(name: str, field: str, resource: str, amount: str, *says: str, **spec: Any) -> Case:
    """Return a case in which a ResourceQuota allows too little of ``resource``."""
    quota = _object("ResourceQuota", "few", spec={"hard": {resource: amount}})
    said = ("exceeded quota: few", *says)
    return Case(name, field, said, {"resources": WAITS, **spec}, (quota,), alone=True)


def _range(name: str, field: str, says: str, limit: Object, **spec: Any) -> Case:
    """Return a case in which a LimitRange refuses a container or a claim."""
    limits = _object("LimitRange", "range", spec={"limits": [{"type": "Container", **limit}]})
    return Case(name, field, (says,), {"resources": WAITS, **spec}, (limits,), alone=True)


def _claim(name: str, volume: str = "", mode: str = "ReadWriteOnce", storage_class: str = "") -> Object:
    """Return a PersistentVolumeClaim. It is bound to the volume ``volume``, if that is not empty."""
    spec = {
        "accessModes": [mode],
        "resources": {"requests": {"storage": "1Mi"}},
        "storageClassName": storage_class,
        **({"volumeName": volume} if volume else {}),
    }
    return _object("PersistentVolumeClaim", name, spec=spec)


def _volume(
    name: str, claim: str, mode: str = "ReadWriteOnce", storage_class: str = "", **source: Any
) -> Object:
    """Return a PersistentVolume for the claim ``claim``. If ``claim`` is empty, it is for any claim."""
    spec = {
        "accessModes": [mode],
        "capacity": {"storage": "1Mi"},
        "storageClassName": storage_class,
        **({"claimRef": {"namespace": SHARED, "name": claim}} if claim else {}),
        **(source or {"hostPath": {"path": "/tmp"}}),
    }
    return _object("PersistentVolume", f"{SHARED}-{name}", spec=spec)


def _on_claim(name: str) -> Object:
    """Return the spec of a job that stores its run in an existing claim. Its image cannot be pulled."""
    return {"storage": {"persistentVolumeClaim": {"claimName": name}}, "template": NO_IMAGE}


def _pod(name: str, claim: str, **spec: Any) -> Object:
    """Return a pod with a claim. The pod never runs, because its image cannot be pulled."""
    container = {
        "name": "main",
        "image": NO_IMAGE["image"],
        "volumeMounts": [{"name": "v", "mountPath": "/v"}],
    }
    volume = {"name": "v", "persistentVolumeClaim": {"claimName": claim}}
    return _object("Pod", name, spec={"containers": [container], "volumes": [volume], **spec})


def _only_in(name: str) -> Object:
    """Return a ``namespaceSelector`` that matches only the namespace of the case ``name``."""
    return {"matchLabels": {"kubernetes.io/metadata.name": own_namespace(name)}}


def _policy(name: str, group: str, resource: str, expression: str, message: str) -> tuple[Object, ...]:
    """Return a ValidatingAdmissionPolicy for one case."""
    api = "admissionregistration.k8s.io/v1"
    rule = {"apiGroups": [group], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": [resource]}
    bound = own_namespace(name)
    return (
        _object(
            "ValidatingAdmissionPolicy",
            bound,
            api,
            spec={
                "failurePolicy": "Fail",
                "matchConstraints": {"namespaceSelector": _only_in(name), "resourceRules": [rule]},
                "validations": [{"expression": expression, "message": message}],
            },
        ),
        _object(
            "ValidatingAdmissionPolicyBinding",
            bound,
            api,
            spec={"policyName": bound, "validationActions": ["Deny"]},
        ),
    )


def _webhook(name: str) -> Object:
    """Return a webhook for the pods of one case. No program serves it."""
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    hook = {
        "name": "pods.rft-obstacle.dev",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Fail",
        "timeoutSeconds": 2,
        "namespaceSelector": _only_in(name),
        "clientConfig": {"service": {"namespace": own_namespace(name), "name": "none"}},
        "rules": [rule],
    }
    api = "admissionregistration.k8s.io/v1"
    return _object("ValidatingWebhookConfiguration", own_namespace(name), api, webhooks=[hook])


def _injected(name: str) -> tuple[Object, ...]:
    """Return the namespace of one case, and a policy that adds a container to its pods, as service meshes do.

    The namespace enforces the Pod Security level "restricted", which refuses this container.
    """
    api, bound = "admissionregistration.k8s.io/v1", own_namespace(name)
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    container = 'Object.spec.containers{name: "mesh", image: "registry.invalid/mesh:1"}'
    level = {"pod-security.kubernetes.io/enforce": "restricted"}
    return (
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": bound, "labels": level}},
        _object(
            "MutatingAdmissionPolicy",
            bound,
            api,
            spec={
                "failurePolicy": "Fail",
                "reinvocationPolicy": "Never",
                "matchConstraints": {"namespaceSelector": _only_in(name), "resourceRules": [rule]},
                "mutations": [
                    {
                        "patchType": "ApplyConfiguration",
                        "applyConfiguration": {
                            "expression": f"Object{{spec: Object.spec{{containers: [{container}]}}}}"
                        },
                    }
                ],
            },
        ),
        _object("MutatingAdmissionPolicyBinding", bound, api, spec={"policyName": bound}),
    )


def _template(**changes: Any) -> Object:
    """Return the spec of a job with ``changes`` in ``spec.template``. The job's image cannot be pulled."""
    return {"template": {**NO_IMAGE, **changes}}


def _unplaced(**changes: Any) -> Object:
    """Return the spec of a job with ``changes`` in ``spec.template``. The job's pod fits on no node."""
    return {"resources": WAITS, "template": changes}


def _graded(secret: str, key: str) -> Object:
    """Return the spec of a job with a grader that needs a Secret."""
    server = {"url": "https://grader.invalid", "secretRef": {"name": secret, "key": key}}
    return {"graders": [{"name": "remote", "http": server}], "template": NO_IMAGE}


ROWS = _object("ConfigMap", "rows", data={"train.jsonl": '{"prompt": "1+1", "answer": 2}\n'})
DEADLINE = "2026-01-01T00:00:00Z"
NEVER_STARTS = {"resources": WAITS, "template": None}
"""Changes of the spec with which a suspended job resumes if something in its ``template`` was wrong.

They remove the template. The new pod fits on no node, so that no trainer starts.
"""
UNPLACED = {"resources": {**SMALL, "nodeSelector": None}}
"""Changes of the spec that remove a node selector that matches no node, so that a suspended job can start."""
TAKEN = {"rft.dev/obstacle": "here"}
NODE: Object = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {
        "name": "rft-obstacle",
        "labels": TAKEN,
        "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
    },
    "spec": {"taints": [{"key": "rft.dev/obstacle", "effect": "NoSchedule"}]},
}
"""A Node object without a machine. Volumes can be attached to it. No job tolerates its taint."""
ELSEWHERE = {"nodeName": "rft-obstacle"}
USER, HOLDER = _pod("user", "private", **ELSEWHERE), _pod("holder", "attached", **ELSEWHERE)
FORCED = {"rft.dev/force-memory": "true"}
LEAST = 30
"""The smallest number of obstacles that this module must try."""

CASES = (
    # Refused by the API server: the pod, the Job, or another child object.
    _quota("quota on memory", "spec.resources.memory", "limits.memory", "1Mi"),
    _quota("quota on CPU limits", "spec.resources.cpuLimit", "limits.cpu", "1m"),
    _quota("quota on CPU requests", "spec.resources.cpu", "requests.cpu", "1m"),
    _quota("quota on disk", "spec.resources.ephemeralStorage", "requests.ephemeral-storage", "1Mi"),
    _quota(
        "quota on GPUs",
        "spec.resources.gpus",
        "requests.nvidia.com/gpu",
        "0",
        resources={"accelerator": {"name": "nvidia-h100-80gb"}, "gpus": 1, **NOWHERE},
    ),
    _quota("quota on pods", "ResourceQuota few", "pods", "0", "pods=1"),
    _quota("quota on Jobs", "ResourceQuota few", "count/jobs.batch", "0", "Job"),
    _quota("quota on ConfigMaps", "ResourceQuota few", "count/configmaps", "0", "ConfigMap"),
    _quota(
        "quota on claims",
        "spec.storage.persistentVolumeClaim",
        "persistentvolumeclaims",
        "0",
        storage={"claimTemplate": {"size": "1Gi"}},
    ),
    _quota(
        "quota on storage",
        "spec.storage.claimTemplate.size",
        "requests.storage",
        "1Mi",
        storage={"claimTemplate": {"size": "1Gi"}},
    ),
    _range(
        "LimitRange with a maximum",
        "spec.resources.memory to 10Mi",
        "maximum memory usage",
        {"max": {"memory": "10Mi"}},
    ),
    _range(
        "LimitRange with a minimum",
        "spec.resources.cpu to 1",
        "minimum cpu usage",
        {"min": {"cpu": "1"}},
    ),
    _range(
        "LimitRange with a ratio",
        "spec.resources.cpuLimit",
        "cpu max limit to request ratio",
        {"maxLimitRequestRatio": {"cpu": "2"}},
        resources={**WAITS, "cpuLimit": "1"},
    ),
    _range(
        "LimitRange on claims",
        "spec.storage.claimTemplate.size to 1Mi",
        "maximum storage usage",
        {"type": "PersistentVolumeClaim", "max": {"storage": "1Mi"}},
        storage={"claimTemplate": {"size": "1Gi"}},
    ),
    Case(
        "missing ServiceAccount",
        "spec.template.serviceAccountName",
        ('serviceaccount "reader" not found',),
        _unplaced(serviceAccountName="reader"),
        mend=(_object("ServiceAccount", "reader"),),
    ),
    Case(
        "missing PriorityClass",
        "spec.template.priorityClassName",
        ("no PriorityClass with name rft-obstacles-urgent was found",),
        _unplaced(priorityClassName=f"{SHARED}-urgent"),
        mend=(_object("PriorityClass", f"{SHARED}-urgent", "scheduling.k8s.io/v1", value=0),),
    ),
    Case(
        "missing RuntimeClass",
        "spec.template.runtimeClassName",
        ('RuntimeClass "rft-obstacles-kata" not found',),
        _unplaced(runtimeClassName=f"{SHARED}-kata"),
        mend=(_object("RuntimeClass", f"{SHARED}-kata", "node.k8s.io/v1", handler="runc"),),
    ),
    Case(
        "Pod Security",
        "spec.template.annotations",
        ('violates PodSecurity "restricted:latest"', '"mesh"'),
        {"resources": WAITS},
        _injected("Pod Security"),
        alone=True,
        probe="Pod",
        mend=(
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {
                    "name": own_namespace("Pod Security"),
                    "labels": {"pod-security.kubernetes.io/enforce": "privileged"},
                },
            },
        ),
    ),
    Case(
        "policy on pods",
        "The policy rft-obstacle-policy-on-pods",
        ("denied request: pods need an owner",),
        {"resources": WAITS},
        _policy("policy on pods", "", "pods", HAS_OWNER, "pods need an owner"),
        alone=True,
        probe="Pod",
    ),
    Case(
        "policy on Jobs",
        "spec.template.labels",
        ("denied request: set spec.template.labels.owner",),
        {"resources": WAITS},
        _policy(
            "policy on Jobs",
            "batch",
            "jobs",
            HAS_OWNER,
            "set spec.template.labels.owner",
        ),
        alone=True,
        probe="Job",
        patch={"template": {"labels": {"owner": "me"}}},
    ),
    Case(
        "webhook that does not answer",
        "The webhook pods.rft-obstacle.dev",
        ("failed calling webhook",),
        {"resources": WAITS},
        (_webhook("webhook that does not answer"),),
        alone=True,
        probe="Pod",
    ),
    Case(
        "label of 64 characters",
        "spec.template.labels",
        ("must be no more than 63",),
        _unplaced(labels={"team": "t" * 64}),
        patch={"template": {"labels": {"team": "t"}}},
    ),
    Case(
        "mount path twice",
        "spec.template.volumes[0].mountPath",
        ("must be unique",),
        _unplaced(volumes=[{"name": "e", "mountPath": "/data/train", "configMap": "rows"}]),
        patch={"template": {"volumes": [{"name": "e", "mountPath": "/extra", "configMap": "rows"}]}},
    ),
    Case(
        "toleration with a value too much",
        "spec.resources.tolerations[0]",
        ("value must be empty",),
        {"resources": {**WAITS, "tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}},
        patch={"resources": {"tolerations": [{"key": "a", "operator": "Exists"}]}},
    ),
    Case(
        "affinity of a wrong form",
        "spec.template.affinity",
        ("cannot unmarshal",),
        _unplaced(affinity={"podAffinity": "near"}),
        patch={"template": {"affinity": None}},
    ),
    Case(
        "access modes that exclude each other",
        "spec.storage.claimTemplate.accessModes",
        ("may not use ReadWriteOncePod with other access modes",),
        {
            "resources": WAITS,
            "storage": {
                "claimTemplate": {
                    "size": "1Mi",
                    "accessModes": ["ReadWriteOncePod", "ReadWriteMany"],
                    "retain": False,
                }
            },
        },
        patch={"storage": {"claimTemplate": {"accessModes": ["ReadWriteOncePod"]}}},
    ),
    Case(
        "deadline before the first step",
        f"spec.stop.deadline {DEADLINE}",
        ("Set a later deadline",),
        {"resources": WAITS, "stop": {"deadline": DEADLINE}},
        patch={"stop": {"deadline": "2099-01-01T00:00:00Z"}},
    ),
    # Refused by the scheduler or a controller: the pod gets no node.
    Case(
        "no node has the label",
        "spec.resources.nodeSelector",
        ("node affinity/selector",),
        {"resources": WAITS, "template": NO_IMAGE},
        resume=UNPLACED,
    ),
    Case(
        "too much memory",
        "spec.resources.memory",
        ("Insufficient memory",),
        {"resources": {**SMALL, "memory": "64Ti"}, "template": NO_IMAGE},
        resume={"resources": SMALL},
    ),
    Case(
        "no GPU",
        "spec.resources.accelerator.name",
        ("The pod needs 1 nvidia.com/gpu",),
        {"resources": {"accelerator": {"name": "nvidia-h100-80gb"}, "gpus": 1}, "template": NO_IMAGE},
        resume={"resources": {**WAITS, "accelerator": {"name": "cpu"}}},
    ),
    Case(
        "taint that is not tolerated",
        "spec.resources.tolerations",
        ("untolerated taint",),
        {"resources": {**SMALL, "nodeSelector": TAKEN}, "template": NO_IMAGE},
        resume=UNPLACED,
    ),
    Case(
        "topology without a node",
        "spec.template.topologySpreadConstraints",
        ("topology spread constraints",),
        _template(
            topologySpreadConstraints=[
                {"maxSkew": 1, "topologyKey": "rft.dev/none", "whenUnsatisfiable": "DoNotSchedule"}
            ]
        ),
        resume={"template": {"topologySpreadConstraints": None}},
    ),
    Case(
        "pod affinity to no pod",
        "spec.template.affinity",
        ("pod affinity rules",),
        _template(
            affinity={
                "podAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": [
                        {
                            "labelSelector": {"matchLabels": {"rft.dev/none": "here"}},
                            "topologyKey": "kubernetes.io/hostname",
                        }
                    ]
                }
            }
        ),
        resume={"template": {"affinity": None}},
    ),
    Case(
        "missing scheduler",
        "spec.template.schedulerName",
        ("scheduler nobody",),
        _template(schedulerName="nobody"),
        resume={"template": {"schedulerName": None}},
    ),
    Case(
        "missing ResourceClaim",
        "spec.template.resourceClaims[0].resourceClaimName",
        ("ResourceClaim gpus-of-nobody",),  # the scheduler may write no Event about it
        _template(resourceClaims=[{"name": "gpu", "resourceClaimName": "gpus-of-nobody"}]),
        resume={"template": {"resourceClaims": None}},
    ),
    Case(
        "missing ResourceClaimTemplate",
        "spec.template.resourceClaims[0].resourceClaimTemplateName",
        ("gpus-of-all", "not found"),
        _template(resourceClaims=[{"name": "gpu", "resourceClaimTemplateName": "gpus-of-all"}]),
        resume={"template": {"resourceClaims": None}},
    ),
    Case(
        "missing claim",
        "spec.storage.persistentVolumeClaim.claimName",
        ('persistentvolumeclaim "missing" not found',),
        _on_claim("missing"),
        mend=(_volume("missing", "missing"), _claim("missing", f"{SHARED}-missing")),
    ),
    Case(
        "missing StorageClass",
        "spec.storage.claimTemplate.storageClassName",
        ("storageclass", f"{SHARED}-fast", "not found"),
        {
            "storage": {
                "claimTemplate": {"size": "1Mi", "storageClassName": f"{SHARED}-fast", "retain": False}
            },
            "template": NO_IMAGE,
        },
        mend=(
            _object(
                "StorageClass",
                f"{SHARED}-fast",
                "storage.k8s.io/v1",
                provisioner="rft.dev/none",
                volumeBindingMode="WaitForFirstConsumer",
            ),
        ),
    ),
    Case(
        "provisioner that does not answer",
        "spec.storage.claimTemplate",
        ("rft.dev/none",),
        {
            "storage": {
                "claimTemplate": {"size": "1Mi", "storageClassName": f"{SHARED}-slow", "retain": False}
            },
            "template": NO_IMAGE,
        },
        (_object("StorageClass", f"{SHARED}-slow", "storage.k8s.io/v1", provisioner="rft.dev/none"),),
        mend=(_volume("slow", "", storage_class=f"{SHARED}-slow"),),
    ),
    Case(
        "no free volume of the class",
        "spec.storage.persistentVolumeClaim.claimName",
        ("find available persistent volumes to bind",),
        _on_claim("bare"),
        (
            _object(
                "StorageClass",
                f"{SHARED}-bare",
                "storage.k8s.io/v1",
                provisioner="kubernetes.io/no-provisioner",
                volumeBindingMode="WaitForFirstConsumer",
            ),
            _claim("bare", storage_class=f"{SHARED}-bare"),
        ),
        mend=(_volume("bare", "", storage_class=f"{SHARED}-bare"),),
    ),
    Case(
        "access mode that the volume lacks",
        "spec.storage.persistentVolumeClaim.claimName",
        ("incompatible accessMode",),
        _on_claim("read-only"),
        (
            _volume("read-only", "", "ReadOnlyMany"),
            _claim("read-only", f"{SHARED}-read-only"),
        ),
        mend=(_volume("read-only", "read-only"),),
    ),
    Case(
        "volume on another node",
        "spec.storage.persistentVolumeClaim.claimName",
        ("node affinity",),
        _on_claim("far"),
        (
            _volume(
                "far",
                "far",
                hostPath={"path": "/tmp"},
                nodeAffinity={
                    "required": {
                        "nodeSelectorTerms": [
                            {"matchExpressions": [{"key": "rft.dev/none", "operator": "Exists"}]}
                        ]
                    }
                },
            ),
            _claim("far", f"{SHARED}-far"),
        ),
        patch={"cancel": True},
    ),
    Case(
        "claim that another pod uses alone",
        "spec.storage.persistentVolumeClaim.claimName",
        ("ReadWriteOncePod",),
        _on_claim("private"),
        (
            _volume("private", "private", "ReadWriteOncePod"),
            _claim("private", f"{SHARED}-private", "ReadWriteOncePod"),
            USER,
        ),
        gone=(USER,),
    ),
    Case(
        "volume attached to another node",
        "spec.storage.persistentVolumeClaim.claimName",
        ("Multi-Attach error",),
        _on_claim("attached"),
        (
            _volume("attached", "attached", csi={"driver": "rft.dev", "volumeHandle": "attached"}),
            _claim("attached", f"{SHARED}-attached"),
            HOLDER,
        ),
        patch={"cancel": True},
    ),
    # Refused by the kubelet: the pod has a node and does not start there.
    Case(
        "missing ConfigMap of the rows",
        "spec.dataset.configMap.name",
        ('configmap "others" not found', "Create the ConfigMap others"),
        {"dataset": {"configMap": {"name": "others"}}, "template": NO_IMAGE},
        mend=({**ROWS, "metadata": {"name": "others"}},),
    ),
    Case(
        "missing ConfigMap of a volume",
        "spec.template.volumes[0].configMap",
        ('configmap "extra" not found',),
        _template(volumes=[{"name": "e", "mountPath": "/extra", "configMap": "extra"}]),
        mend=({**ROWS, "metadata": {"name": "extra"}},),
    ),
    Case(
        "missing Secret of a grader",
        "spec.graders[0].http.secretRef.name",
        ('secret "remote" not found', "Create the Secret remote"),
        _graded("remote", "token"),
        mend=(_object("Secret", "remote", stringData={"token": "x"}),),
    ),
    Case(
        "missing key of a Secret",
        "spec.graders[0].http.secretRef.key",
        ("non-existent secret key: password", "Add the key password"),
        _graded("keyless", "password"),
        (_object("Secret", "keyless", stringData={"token": "x"}),),
        mend=(_object("Secret", "keyless", stringData={"password": "x"}),),
    ),
    Case(
        "missing Secret of the model",
        "spec.model.secretRef.name",
        ("CreateContainerConfigError", 'secret "hub" not found', "Create the Secret hub"),
        {
            "model": {
                "name": "HuggingFaceTB/SmolLM2-135M-Instruct",
                "secretRef": {"name": "hub", "key": "token"},
            }
        },
        mend=(_object("Secret", "hub", stringData={"token": "x"}),),
    ),
    Case(
        "missing key of a ConfigMap",
        "spec.template.env[0].valueFrom.configMapKeyRef.key",
        ("CreateContainerConfigError", "couldn't find key endpoint", "Add the key endpoint"),
        {
            "template": {
                "env": [
                    {
                        "name": "HF_ENDPOINT",
                        "valueFrom": {"configMapKeyRef": {"name": "rows", "key": "endpoint"}},
                    }
                ]
            }
        },
        patch={"cancel": True},
    ),
    Case(
        "missing image",
        "spec.template.image",
        ("ImagePull", NO_IMAGE["image"]),
        {"template": NO_IMAGE},
        resume=NEVER_STARTS,
    ),
    Case(
        "image that must not be pulled",
        "spec.template.imagePullPolicy",
        ("ErrImageNeverPull", NO_IMAGE["image"]),
        _template(imagePullPolicy="Never"),
        resume=NEVER_STARTS,
    ),
    Case(
        "name that no image can have",
        "spec.template.image",
        ("InvalidImageName",),
        {"template": {"image": "Registry/UPPER:1"}},
        resume=NEVER_STARTS,
    ),
    Case(
        "missing pull Secret",
        "spec.template.imagePullSecrets[0].name",
        ("ImagePull", "Create the Secret pull"),
        _template(imagePullSecrets=[{"name": "pull"}]),
        resume=NEVER_STARTS,
    ),
    Case(
        "sandbox that cannot be made",
        "spec.template.runtimeClassName",
        ("FailedCreatePodSandBox", 'no runtime for "rft-none" is configured'),
        _template(runtimeClassName=f"{SHARED}-none"),
        (_object("RuntimeClass", f"{SHARED}-none", "node.k8s.io/v1", handler="rft-none"),),
        resume={"template": {"runtimeClassName": None}},
    ),
    Case(
        "node without the driver of the volume",
        "spec.storage.persistentVolumeClaim.claimName",
        ("rft-none.dev not found in the list of registered CSI drivers",),
        _on_claim("driverless"),
        (
            _object("CSIDriver", "rft-none.dev", "storage.k8s.io/v1", spec={"attachRequired": False}),
            _volume("driverless", "driverless", csi={"driver": "rft-none.dev", "volumeHandle": "d"}),
            _claim("driverless", f"{SHARED}-driverless"),
        ),
        patch={"cancel": True},
    ),
    Case(
        "missing folder of the volume",
        "spec.storage.persistentVolumeClaim.claimName",
        ("hostPath type check failed",),
        _on_claim("folderless"),
        (
            _volume("folderless", "folderless", hostPath={"path": "/rft-none", "type": "Directory"}),
            _claim("folderless", f"{SHARED}-folderless"),
        ),
        patch={"cancel": True},
    ),
)


KEPT = _object(
    "PersistentVolumeClaim",
    "kept-runs",
    spec={
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Mi"}},
        "storageClassName": "",
    },
)
"""The claim of the jobs that are suspended: a job with ephemeral storage cannot be suspended."""


def _job(case: Case) -> Object:
    kept = {"persistentVolumeClaim": {"claimName": KEPT["metadata"]["name"]}}
    spec: Object = {
        "model": {"name": "HuggingFaceTB/SmolLM2-135M-Instruct"},
        "dataset": {"configMap": {"name": "rows"}},
        "graders": [{"name": "right", "numeric": {}}],
        "training": {"batchSizeTokens": 1024, "maxContextLength": 256},
        "sampling": {"engine": "transformers", "maxTokens": 64},
        "resources": SMALL,
        "storage": kept if case.resume else {"ephemeral": {}},
    }
    job = _object("RFTJob", case.job, "rft.dev/v1alpha1", spec={**spec, **case.spec})
    # The trainer would need more memory than SMALL has. FORCED allows this, and none of these jobs trains.
    return _in(case.namespace, {**job, "metadata": {"name": case.job, "annotations": FORCED}})


def _in(namespace: str, made: Object) -> Object:
    """Return the object with this namespace, or unchanged if its kind is in no namespace."""
    if made["kind"] in CLUSTER_WIDE:
        return made
    return {**made, "metadata": {**made["metadata"], "namespace": namespace}}


def _placed(case: Case, objects: tuple[Object, ...]) -> list[Object]:
    return [_in(case.namespace, made) for made in objects]


OLDEST_MINOR = 29
"""The oldest minor version of Kubernetes that has the access modes and resource claims of all cases."""


def _cluster_wide() -> list[Object]:
    """Return ``NODE`` and the objects of all cases that are in no namespace, except for Namespaces."""
    found = [made for case in CASES for made in (*case.objects, *case.mend) if made["kind"] in CLUSTER_WIDE]
    return [NODE, *(made for made in found if made["kind"] != "Namespace")]


def _delete(kubectl: Kubectl, objects: list[Object], *options: str) -> None:
    """Delete objects. Pods are deleted without waiting for a kubelet, because ``NODE`` has none."""
    at_once = ("--grace-period=0", "--force", "--ignore-not-found")
    kubectl.run("delete", "-f", "-", *at_once, *options, stdin=yaml.safe_dump_all(objects))


@pytest.fixture(scope="module")
def everywhere(kubectl: Kubectl) -> Kubectl:
    """kubectl without a fixed namespace, so that one call can have objects of several namespaces."""
    found = copy(kubectl)
    found.namespace = ""
    return found


@pytest.fixture(scope="module")
def cases(everywhere: Kubectl) -> Iterator[dict[str, Case]]:
    """The cases that are possible on this cluster, by the names of their jobs. Their namespaces exist."""
    version = json.loads(everywhere.run("get", "--raw=/version").stdout)
    if int(version["minor"].rstrip("+")) < OLDEST_MINOR:
        pytest.skip(
            f"the cases quote what Kubernetes 1.{OLDEST_MINOR} and later say; this is {version['gitVersion']}"
        )
    found = {case.job: case for case in CASES if _is_possible(everywhere, case)}
    namespaces = [_object("Namespace", name) for name in sorted({case.namespace for case in found.values()})]
    pods = [_in(case.namespace, made) for case in CASES for made in case.objects if made["kind"] == "Pod"]

    def clean_up(*options: str) -> None:
        _delete(everywhere, [*pods, *namespaces, *_cluster_wide()], *options)

    clean_up("--wait")
    everywhere.apply(*namespaces)
    try:
        yield found
    finally:
        clean_up("--wait=false")


def _is_possible(kubectl: Kubectl, case: Case) -> bool:
    """Return whether the API server knows the kinds of a case's policies."""
    kinds = {made["kind"] for made in case.objects if made["kind"].endswith("AdmissionPolicy")}
    known = kubectl.run("get", "--raw=/apis/admissionregistration.k8s.io/v1", check=False).stdout
    return all(f'"{kind}"' in known for kind in kinds)


def _prepare(kubectl: Kubectl, cases: dict[str, Case]) -> None:
    """Apply the objects that prevent the jobs' start, and wait until they have an effect."""
    namespaces = sorted({case.namespace for case in cases.values()})
    kubectl.apply(NODE, *(_in(name, ROWS) for name in namespaces))
    kubectl.apply(*(_in(name, KEPT) for name in sorted({c.namespace for c in cases.values() if c.resume})))
    kubectl.apply(*(made for case in cases.values() for made in _placed(case, case.objects)))

    def accounts() -> bool:
        found = json.loads(kubectl.run("get", "serviceaccounts", "-A", "-o", "json").stdout)["items"]
        return {each["metadata"]["namespace"] for each in found} >= set(namespaces)

    def quotas() -> bool:
        found = json.loads(kubectl.run("get", "resourcequotas", "-A", "-o", "json").stdout)["items"]
        return all((each.get("status") or {}).get("hard") for each in found)

    wait_until("every namespace has a service account", accounts, 60)
    wait_until("every quota counts", quotas, 60)
    for case in cases.values():
        if case.probe:
            wait_until(f"{case.name}: an effect", partial(_is_refused, kubectl, case), 60)
    wait_until("the volume is attached to the other node", lambda: _attach(kubectl), 60)


def _is_refused(kubectl: Kubectl, case: Case) -> bool:
    """Return whether the API server refuses an object of the kind ``case.probe`` with the case's message."""
    pod = {"containers": [{"name": "main", "image": NO_IMAGE["image"]}], "restartPolicy": "Never"}
    made = {
        "Pod": _object("Pod", "probe", spec=pod),
        "Job": _object("Job", "probe", "batch/v1", spec={"template": {"spec": pod}}),
    }[case.probe]
    tried = yaml.safe_dump(_in(case.namespace, made))
    answer = kubectl.run("create", "--dry-run=server", "-f", "-", stdin=tried, check=False)
    return case.says[-1] in answer.stderr


def _attach(kubectl: Kubectl) -> bool:
    """Report volumes as attached to ``NODE``, as their driver would. Return whether there are any."""
    found = json.loads(kubectl.run("get", "volumeattachments", "-o", "json").stdout)["items"]
    ours = [each for each in found if each["spec"]["nodeName"] == NODE["metadata"]["name"]]
    for each in ours:
        where = ("volumeattachment", each["metadata"]["name"], "--subresource=status", "--type=merge")
        kubectl.run("patch", *where, "-p", json.dumps({"status": {"attached": True}}))
    return bool(ours)


def _statuses(kubectl: Kubectl) -> dict[str, Object]:
    """Return the status of each RFTJob in the cluster, by the job's name."""
    found = json.loads(kubectl.run("get", "rftjobs", "-A", "-o", "json").stdout)["items"]
    return {each["metadata"]["name"]: each.get("status") or {} for each in found}


def _seconds_until(
    what: str,
    kubectl: Kubectl,
    started: dict[str, float],
    is_so: Callable[[str, Object], bool],
    limit: float,
) -> dict[str, float]:
    """Return the seconds from the start of each case until ``is_so`` was true for it, by the job's name.

    ``started`` has the time at which each case started. ``is_so`` is called with the job's name and status.

    Raises:
        AssertionError: ``is_so`` is still false for a case after ``limit`` seconds. The message has ``what``,
            and the messages of these cases.
    """
    took: dict[str, float] = {}
    seen: dict[str, Object] = {}

    def all_are() -> bool:
        seen.update(_statuses(kubectl))
        for name in started.keys() - took.keys():
            if is_so(name, seen.get(name, {})):
                took[name] = time.monotonic() - started[name]
        return len(took) == len(started)

    try:
        wait_until(what, all_are, limit, poll=0.5)
    except AssertionError as error:
        missing = {name: seen.get(name, {}).get("message") for name in sorted(started.keys() - took.keys())}
        raise AssertionError(f"{what}: not for {json.dumps(missing, indent=1)}") from error
    return took


def _create(kubectl: Kubectl, cases: dict[str, Case]) -> dict[str, float]:
    """Create the jobs, ten at a time. Return the time at which each was created, by the job's name."""
    started: dict[str, float] = {}
    jobs = list(cases.values())
    for first in range(0, len(jobs), 10):
        some = jobs[first : first + 10]
        started |= dict.fromkeys((case.job for case in some), time.monotonic())
        kubectl.apply(*map(_job, some))
    return started


def _change(kubectl: Kubectl, case: Case, spec: Object) -> None:
    where = ("rftjob", case.job, f"--namespace={case.namespace}", "--type=merge")
    kubectl.run("patch", *where, "-p", json.dumps({"spec": spec}))


def _mend(kubectl: Kubectl, cases: dict[str, Case]) -> dict[str, float]:
    """Remove what prevents each job's start.

    If the case has ``resume``, only suspend the job: the test changes its spec later. Return
    the time at which this was done for each job, by the job's name.
    """
    began = time.monotonic()
    others = [case for case in cases.values() if not case.patch and not case.resume]
    kubectl.apply(*(made for case in others for made in _placed(case, case.mend)))
    gone = [made for case in others if not case.mend for made in _placed(case, case.gone or case.objects)]
    _delete(kubectl, gone, "--wait=false")
    mended = dict.fromkeys((case.job for case in others), began)
    for name, case in cases.items():
        if case.patch or case.resume:
            mended[name] = time.monotonic()
            _change(kubectl, case, case.patch or {"suspend": True})
    return mended


def test_what_keeps_a_job_from_starting_is_told_and_goes_when_it_is_mended(
    everywhere: Kubectl, cases: dict[str, Case], request: pytest.FixtureRequest
) -> None:
    texts: dict[str, str] = {}
    resumed: set[str] = set()

    def told(name: str, status: Object) -> bool:
        conditions: list[Object] = status.get("conditions") or []
        ready: Object = next((each for each in conditions if each["type"] == "Ready"), {})
        texts[name] = f"{ready.get('reason')}: {status.get('message')}"
        return cases[name].is_told(status)

    def cleared(name: str, status: Object) -> bool:
        case = cases[name]
        if case.resume and name not in resumed:
            if status.get("phase") == "Suspended":
                _change(everywhere, case, {"suspend": False, **case.resume})
                resumed.add(name)
            return False
        return not case.is_told(status) and not (case.resume and status.get("phase") == "Suspended")

    _prepare(everywhere, cases)
    told_after = _seconds_until("the cause is told", everywhere, _create(everywhere, cases), told, 120)
    cleared_after = _seconds_until(
        "the message goes", everywhere, _mend(everywhere, cases), cleared, CLEARED_SECONDS
    )
    printed = table(
        request.config,
        "What keeps a job from starting",
        "obstacle",
        "condition Ready: reason and text",
        "what to change",
        "told after",
        "gone after the cause was removed",
    )
    for name, case in cases.items():
        seconds = (f"{told_after[name]:.0f} s", f"{cleared_after[name]:.0f} s")
        printed.rows.append((case.name, texts[name].replace("\n", " "), case.change, *seconds))
    late = {name: round(seconds) for name, seconds in told_after.items() if seconds > BUSY * TOLD_SECONDS}
    assert not late, f"seconds until the status named the cause, allowed {BUSY * TOLD_SECONDS:.0f}: {late}"
    assert len(cases) >= LEAST, f"{len(cases)} obstacles on this cluster, at least {LEAST} are needed"
