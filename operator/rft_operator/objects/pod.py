"""Builds the pod template of an RFTJob's child Job. The pod has the trainer container. If a grader or the
environment is Python code of the user, the pod also has the grader container, which runs this code.

The two containers share only a socket and the users' code. Both mount the code read-only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rft_api.job import RFTJobSpec
from rft_api.resources import EnvVar, Resources, Template
from rft_api.sources import SecretKeyRef
from rft_api.status import NodeLabel, NodeTerm, Plan
from rft_operator.objects.annotations import without_identity
from rft_operator.objects.config import has_user_code
from rft_operator.objects.names import LABEL_JOB_UID, Owner
from rft_operator.objects.platform import Platform
from rft_operator.objects.volumes import Mounted, volumes
from rft_planner.accelerators import resource_of
from rft_planner.nodes import LINUX, OS_LABEL
from rft_run.config import (
    CACHE_DIR,
    CONFIG_DIR,
    CONFIG_FILE,
    GRADER_CONFIG_DIR,
    GRADER_CONFIG_FILE,
    GRADER_CONTAINER,
    GRADER_SOCKET,
    SCRATCH_DIR,
    TRAINER_CONTAINER,
)
from rft_run.destination import PUSH_TOKEN
from rft_run.restricted import TRAINER_UID, container_security, pod_security

GRADER_UID = 10002
GRACE_SECONDS = 120
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
"""Name of the field with the required terms, in the affinities of a pod."""
GRADER_CPU, GRADER_MEMORY = "100m", "256Mi"
"""The CPU and the memory that the grader container requests."""
ANYWHERE = OS_LABEL
"""Topology key for the anti-affinity between the pods of one RFTJob. This node label has the same value on
all nodes that a pod may use. So all these nodes are one topology domain."""
GRADER_CPU_LIMIT = "1"
"""CPU limit of the grader container. It is set only if the trainer container has a CPU limit too."""
GRADER_MEMORY_LIMIT = "1536Mi"
"""Memory limit of the grader container.

A watchdog in the container has a lower limit for the processes of users' code. So it ends such a process
before the kernel would."""
GRADER_STORAGE, GRADER_STORAGE_LIMIT = "64Mi", "4Gi"
"""The ephemeral storage that the grader container requests, and its limit. Users' code writes files there.
Both are set only if the trainer has a limit for ephemeral storage."""
GRADER_AMOUNTS = frozenset((GRADER_CPU, GRADER_CPU_LIMIT, GRADER_MEMORY, GRADER_MEMORY_LIMIT))
"""The CPU and memory requests and limits of the grader container. No field of an RFTJob changes them."""


@dataclass(frozen=True)
class Image:
    """The operator's default for the trainer image: its name, and its ``imagePullPolicy``. It is used if the
    spec of an RFTJob names no image or no policy.
    """

    name: str
    pull_policy: str


def pod_template(
    owner: Owner,
    spec: RFTJobSpec,
    plan: Plan,
    image: Image,
    *,
    reports: bool,
    platform: Platform = Platform(),  # noqa: B008 - immutable
) -> dict[str, Any]:
    """Return the pod template of an RFTJob's child Job.

    - ``image``: the image to use if the spec names none.
    - ``reports``: whether the trainer sends progress reports to the operator. Then the pod gets a token and
      the CA certificates for it.
    - ``platform``: the features and requirements of the cluster.
    """
    asked = spec.resources is not None and spec.resources.ephemeral_storage is not None
    if owner.queue and not asked:
        # Kueue does not admit a pod that requests a resource which the ClusterQueue does not list. Few
        # ClusterQueues list ephemeral storage.
        plan = plan.model_copy(update={"ephemeral_storage": None, "ephemeral_storage_limit": None})
    trainer_limit = plan.cpu_limit or (plan.cpu if platform.cpu_limit else None)
    assigned = platform.assigns_users
    template = spec.template or Template()
    mounted = volumes(owner, spec, reports=reports)
    chosen = {
        "image": template.image or image.name,
        "imagePullPolicy": template.image_pull_policy or image.pull_policy,
    }
    trainer = chosen | _trainer(spec, plan, mounted, trainer_limit, assigned)
    beside: list[dict[str, Any]] = []
    annotations = dict(template.annotations or {})
    if has_user_code(spec):
        limit = GRADER_CPU_LIMIT if trainer_limit else None
        limited = plan.ephemeral_storage_limit is not None
        beside = [chosen | _grader(mounted, limit, assigned, storage=limited)]
        annotations = without_identity(annotations, GRADER_CONTAINER)
    metadata: dict[str, Any] = {"labels": {**(template.labels or {}), **owner.labels}}
    if annotations:
        metadata["annotations"] = annotations
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "shareProcessNamespace": False,
        "securityContext": pod_security(assigned=assigned),
        **_containers(trainer, beside, sidecars=platform.sidecars),
        "volumes": [m.volume for m in mounted],
    }
    return {
        "metadata": metadata,
        "spec": pod | _placement(owner, template, spec.resources or Resources(), plan, platform),
    }


def _containers(trainer: dict[str, Any], beside: list[dict[str, Any]], *, sidecars: bool) -> dict[str, Any]:
    """Return the fields ``containers`` and ``initContainers`` of a pod's spec. ``beside`` is the containers
    other than the trainer.

    With ``sidecars``, the containers in ``beside`` become native sidecars: init containers that run as long
    as the trainer. The kubelet ends them after the trainer, so they do not keep the pod running.
    """
    if not sidecars or not beside:
        return {"containers": [trainer, *beside]}
    return {
        "initContainers": [{**each, "restartPolicy": "Always"} for each in beside],
        "containers": [trainer],
    }


def _placement(
    owner: Owner, template: Template, resources: Resources, plan: Plan, platform: Platform
) -> dict[str, Any]:
    selector, terms = plan.node_selector or {}, plan.node_terms or []
    if owner.queue and selector:
        # Kueue compares the node selector with the labels of a ResourceFlavor. It ignores affinity terms with
        # labels that the ResourceFlavor does not have.
        terms = []
    elif terms:
        selector = {}
    affinity = on_kind(template.affinity, terms)
    if not platform.replaces_pods:
        affinity = pod_anti_affinity(affinity, owner.uid)
    tolerations = [toleration.dump() for toleration in resources.tolerations or []]
    if plan.gpus and resources.gpu_claim is None:
        # GPU nodes often have a taint whose key is the name of the GPU resource. Only some API servers add
        # the toleration for it themselves.
        tolerations.append({"key": _resource(plan), "operator": "Exists", "effect": "NoSchedule"})
    wanted = {
        "serviceAccountName": template.service_account_name,
        "imagePullSecrets": [ref.dump() for ref in template.image_pull_secrets or []],
        "affinity": affinity,
        "topologySpreadConstraints": [
            constraint.dump() for constraint in template.topology_spread_constraints or []
        ],
        "resourceClaims": [claim.dump() for claim in template.resource_claims or []],
        "priorityClassName": template.priority_class_name,
        "runtimeClassName": template.runtime_class_name,
        "schedulerName": template.scheduler_name,
        # The image is for Linux. The OS label is the last entry, so a label of the user cannot replace it.
        "nodeSelector": {
            **selector,
            **(resources.node_selector or {}),
            OS_LABEL: LINUX,
        },
        "tolerations": tolerations,
    }
    return {key: value for key, value in wanted.items() if value}


_ANY_NODE: dict[str, Any] = {}


def on_kind(affinity: dict[str, Any] | None, terms: Sequence[NodeTerm]) -> dict[str, Any] | None:
    """Return the user's ``affinity`` with one more requirement: the pod's node must have the node labels of
    the plan.

    The plan's ``terms`` are alternatives: the node must have all labels of one term. The node selector terms
    in ``affinity`` are alternatives too. So each term of the user is combined with each term of the plan. An
    empty term of the user matches no node and is left out, unless all are empty.

    A malformed affinity is returned unchanged, and the API server refuses it. If ``terms`` is empty,
    ``affinity`` is returned unchanged.
    """
    if not terms:
        return affinity
    affinity = affinity or {}
    node = affinity.get("nodeAffinity") or {}
    required = node.get(REQUIRED) or {} if isinstance(node, dict) else None
    theirs = required.get("nodeSelectorTerms", [_ANY_NODE]) if isinstance(required, dict) else None
    if not isinstance(node, dict) or not isinstance(required, dict) or not _are_terms(theirs):
        return affinity
    both = [
        {**one, "matchExpressions": [*(one.get("matchExpressions") or []), *map(_expression, term.labels)]}
        for one in theirs or []
        for term in terms
        if one is _ANY_NODE or one.get("matchExpressions") or one.get("matchFields")
    ] or theirs
    return {**affinity, "nodeAffinity": {**node, REQUIRED: {**required, "nodeSelectorTerms": both}}}


def _are_terms(theirs: Any) -> bool:
    return isinstance(theirs, list) and all(
        isinstance(one, dict) and isinstance(one.get("matchExpressions") or [], list) for one in theirs
    )


def _expression(label: NodeLabel) -> dict[str, Any]:
    if not label.values:
        return {"key": label.key, "operator": "DoesNotExist"}
    return {"key": label.key, "operator": "In", "values": list(label.values)}


def pod_anti_affinity(affinity: dict[str, Any] | None, uid: str) -> dict[str, Any]:
    """Return the user's ``affinity`` with a required anti-affinity between all pods of one RFTJob. ``uid`` is
    the UID of the RFTJob.

    With it, the scheduler does not place a second pod while the first one is still assigned to a node, for
    example in its grace period, or on a node that does not answer. Newer API servers do not need it: there
    the Job's ``podReplacementPolicy`` delays the second pod.

    A malformed affinity is returned unchanged, and the API server refuses it.
    """
    affinity = affinity or {}
    apart = affinity.get("podAntiAffinity") or {}
    if not isinstance(apart, dict) or not isinstance(apart.get(REQUIRED) or [], list):
        return affinity
    own = {"labelSelector": {"matchLabels": {LABEL_JOB_UID: uid}}, "topologyKey": ANYWHERE}
    return {**affinity, "podAntiAffinity": {**apart, REQUIRED: [*(apart.get(REQUIRED) or []), own]}}


def _trainer(
    spec: RFTJobSpec, plan: Plan, mounted: list[Mounted], cpu_limit: str | None, assigned: bool
) -> dict[str, Any]:
    requests = {"cpu": plan.cpu, "memory": plan.memory, "ephemeral-storage": plan.ephemeral_storage}
    limits = {
        "memory": plan.memory, "cpu": cpu_limit, "ephemeral-storage": plan.ephemeral_storage_limit,
    }  # fmt: skip
    if plan.gpus and not _gpu_claim(spec):
        limits[_resource(plan)] = str(plan.gpus)
    claims = [{"name": claim.name} for claim in (spec.template or Template()).resource_claims or []]
    return {
        "name": TRAINER_CONTAINER,
        "command": ["python", "-m", "rft_trainer"],
        "args": ["--config", f"{CONFIG_DIR}/{CONFIG_FILE}"],
        "env": _environment(spec, assigned),
        "resources": {
            "requests": _given(requests),
            "limits": _given(limits),
            **({"claims": claims} if claims else {}),
        },
        "securityContext": container_security(TRAINER_UID, assigned=assigned),
        "terminationMessagePolicy": "File",
        "volumeMounts": [m.mount(m.trainer) for m in mounted if m.trainer is not None],
    }


def _gpu_claim(spec: RFTJobSpec) -> str | None:
    return spec.resources.gpu_claim if spec.resources is not None else None


def _resource(plan: Plan) -> str:
    return plan.gpu_resource or resource_of(plan.accelerator)


def _grader(
    mounted: list[Mounted], cpu_limit: str | None, assigned: bool, *, storage: bool
) -> dict[str, Any]:
    config = f"{GRADER_CONFIG_DIR}/{GRADER_CONFIG_FILE}"
    return {
        "name": GRADER_CONTAINER,
        "command": ["python", "-m", "rft_graders.serve"],
        "args": ["--socket", GRADER_SOCKET, "--config", config],
        "env": [_variable("HOME", "/tmp"), _variable("TMPDIR", "/tmp")],  # noqa: S108
        "resources": {
            "requests": _given(
                {
                    "cpu": GRADER_CPU,
                    "memory": GRADER_MEMORY,
                    "ephemeral-storage": GRADER_STORAGE if storage else None,
                }
            ),
            "limits": _given(
                {
                    "memory": GRADER_MEMORY_LIMIT,
                    "cpu": cpu_limit,
                    "ephemeral-storage": GRADER_STORAGE_LIMIT if storage else None,
                }
            ),
        },
        "securityContext": container_security(GRADER_UID, assigned=assigned),
        "terminationMessagePolicy": "File",
        "volumeMounts": [m.mount(m.grader) for m in mounted if m.grader is not None],
    }


def _environment(spec: RFTJobSpec, assigned: bool) -> list[dict[str, Any]]:
    """Return the environment variables of the trainer container. The operator's own variables replace the
    user's variables of the same name.

    ``assigned``: whether the cluster assigns the user ID. Then the image has no user name for this ID, so
    ``USER`` is set: torch and other libraries ask for a name.
    """
    template = spec.template or Template()
    tracking = spec.tracking
    wandb = tracking.wandb.secret_ref if tracking and tracking.wandb else None
    hub = spec.output.hub.secret_ref if spec.output and spec.output.hub else None
    mlflow = tracking.mlflow.secret_ref if tracking and tracking.mlflow else None
    ours = [
        _from_field("RFT_POD_UID", "metadata.uid"),
        _from_field("RFT_POD_NAME", "metadata.name"),
        _variable("HOME", SCRATCH_DIR),
        _variable("TMPDIR", "/tmp"),  # noqa: S108 - a volume of its own
        *([_variable("USER", "trainer")] if assigned else []),
        *([_variable("HF_HUB_CACHE", CACHE_DIR)] if spec.model.cache is not None else []),
        *_from_secret("HF_TOKEN", spec.model.secret_ref),
        *_from_secret(PUSH_TOKEN, hub),
        *_from_secret("WANDB_API_KEY", wandb),
        *_from_secret("MLFLOW_TRACKING_TOKEN", mlflow),
    ]
    taken = {variable["name"] for variable in ours}
    theirs = [_theirs(v) for v in template.env or [] if v.name not in taken]
    return theirs + ours


def _theirs(variable: EnvVar) -> dict[str, Any]:
    if variable.value_from is not None:
        return {"name": variable.name, "valueFrom": variable.value_from.dump()}
    secret = _from_secret(variable.name, variable.secret_ref)
    return secret[0] if secret else _variable(variable.name, variable.value or "")


def _variable(name: str, value: str) -> dict[str, Any]:
    return {"name": name, "value": value}


def _from_field(name: str, path: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _from_secret(name: str, ref: SecretKeyRef | None) -> list[dict[str, Any]]:
    if ref is None:
        return []
    return [{"name": name, "valueFrom": {"secretKeyRef": {"name": ref.name, "key": ref.key}}}]


def _given(amounts: dict[str, str | None]) -> dict[str, str]:
    return {name: amount for name, amount in amounts.items() if amount is not None}
