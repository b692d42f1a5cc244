"""The pydantic classes for the trainer's pod: GPUs, CPU and memory, and other settings of the pod."""

from typing import Annotated, Any, Literal

from pydantic import Field

from rft_api.base import Int, Model, map_by, unique_by
from rft_api.forms import ABSOLUTE_PATH, FIELD_PATH, IDENTIFIER, LABEL, QUANTITY
from rft_api.sources import SecretKeyRef


class Accelerator(Model):
    """The kind of GPU on which the job runs, and for which its memory is planned."""

    name: str | None = Field(
        None, description="Name of the GPU in the catalogue, such as nvidia-h100-80gb, or cpu."
    )
    memory: str | None = Field(
        None,
        **QUANTITY.limits(),
        description="Memory of one GPU. It is needed for a GPU that is not in the catalogue.",
    )


class Toleration(Model):
    """A Kubernetes toleration, with which the pod may run on nodes that have a matching taint."""

    key: str | None = Field(None, description="Key of the taint. If absent, every key matches.")
    operator: Literal["Exists", "Equal"] = Field(
        "Equal",
        description=(
            "How the taint's value is compared: Exists matches every value, Equal only the same value."
        ),
    )
    value: str | None = Field(None, description="Value of the taint.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        None, description="Effect of the taint. If absent, every effect matches."
    )
    toleration_seconds: Int | None = Field(
        None, ge=0, description="Number of seconds that the pod stays on a node with a NoExecute taint."
    )


class Resources(Model):
    """Resources that the pod requests. A field that is set replaces the operator's planned value."""

    accelerator: Accelerator | None = Field(
        None, description="Kind of GPU. If absent, it is chosen among the GPUs of the cluster's nodes."
    )
    gpus: Int | None = Field(
        None,
        ge=0,
        le=16,
        description=(
            "Number of GPUs of the pod. It replaces the number of the plan. If the plan would have another"
            " number, a warning is shown. 0 means a run on the CPU."
        ),
    )
    cpu: str | None = Field(None, **QUANTITY.limits(), description="CPU request of the trainer.")
    cpu_limit: str | None = Field(
        None,
        **QUANTITY.limits(),
        description=(
            "CPU limit of the trainer. If absent, the trainer has no limit. There is one exception: if a"
            " ResourceQuota or a LimitRange requires a limit, the limit is equal to the CPU request."
        ),
    )
    memory: str | None = Field(
        None, **QUANTITY.limits(), description="Memory request and limit of the trainer."
    )
    ephemeral_storage: str | None = Field(
        None,
        **QUANTITY.limits(),
        description=(
            "Request and limit of ephemeral storage. The trainer needs this storage for files on its node,"
            " such as a downloaded model. If absent, the plan sets the request and the limit."
        ),
    )
    shm: str | None = Field(None, **QUANTITY.limits(), description="Size of /dev/shm.")
    node_selector: dict[str, str] | None = Field(
        None, description="Labels that a node must have to run the pod."
    )
    tolerations: list[Toleration] | None = Field(
        None, max_length=64, description="Taints of nodes that the pod tolerates."
    )
    gpu_claim: str | None = Field(
        None,
        **LABEL.limits(),
        description=(
            "Name of a claim in spec.template.resourceClaims. The pod gets its GPUs from this claim, and"
            " requests no extended resource such as nvidia.com/gpu."
        ),
    )
    price_per_gpu_hour: float | None = Field(
        None, ge=0, description="Price of one GPU-hour in your currency, for the cost estimate."
    )


class SecretKeySelector(Model):
    """A key of a Secret in the job's namespace, written as in a Kubernetes container."""

    name: str = Field(min_length=1, description="Name of the Secret.")
    key: str = Field(min_length=1, description="Key in the Secret.")
    optional: bool | None = Field(
        None, description="Whether the pod also starts without the Secret or the key."
    )


class ConfigMapKeySelector(Model):
    """A key of a ConfigMap in the job's namespace, written as in a Kubernetes container."""

    name: str = Field(min_length=1, description="Name of the ConfigMap.")
    key: str = Field(min_length=1, description="Key in the ConfigMap.")
    optional: bool | None = Field(
        None, description="Whether the pod also starts without the ConfigMap or the key."
    )


class ObjectFieldSelector(Model):
    """A field of the pod, as the value of an environment variable."""

    api_version: Literal["v1"] | None = Field(
        None, description="API version in which path is a field of the pod."
    )
    field_path: str = Field(
        **FIELD_PATH.limits(), description="Path of a field of the pod, such as metadata.name."
    )


class ResourceFieldSelector(Model):
    """A resource limit or request of the trainer's container, as the value of an environment variable."""

    resource: Literal[
        "limits.cpu",
        "limits.memory",
        "limits.ephemeral-storage",
        "requests.cpu",
        "requests.memory",
        "requests.ephemeral-storage",
    ] = Field(description="The limit or request whose amount the variable gets.")
    divisor: str | None = Field(
        None, **QUANTITY.limits(), description="Unit of the value, such as 1Mi. If absent, it is 1."
    )


class EnvVarSource(Model):
    """The source of an environment variable's value, as in a Kubernetes container. Exactly one is set."""

    secret_key_ref: SecretKeySelector | None = Field(None, description="Key of a Secret.")
    config_map_key_ref: ConfigMapKeySelector | None = Field(None, description="Key of a ConfigMap.")
    field_ref: ObjectFieldSelector | None = Field(None, description="Field of the pod.")
    resource_field_ref: ResourceFieldSelector | None = Field(
        None, description="The value is a resource limit or request of the trainer's container."
    )


class EnvVar(Model):
    """An environment variable of the trainer container."""

    name: str = Field(**IDENTIFIER.limits(), description="Name of the environment variable.")
    value: str | None = Field(
        None,
        description="Value of the variable. If absent, it is empty. Use valueFrom for a secret value.",
    )
    value_from: EnvVarSource | None = Field(
        None, description="Source of the value, as in a Kubernetes container."
    )
    secret_ref: SecretKeyRef | None = Field(
        None, description="Secret with the value: a short form of valueFrom.secretKeyRef."
    )


OPERATOR_VARIABLES = ("RFT_POD_UID", "RFT_POD_NAME", "HOME", "TMPDIR")
"""Environment variables that the operator sets in the trainer's container in every job."""
TRAINER_VARIABLES = ("RFT_DEVICE", "RFT_CPU_DTYPE", "RFT_ATTENTION")
"""Environment variables whose name begins with RFT_ and that a job may set."""


class LocalObjectRef(Model):
    """A reference to a Kubernetes object in the job's namespace, by the name of the object."""

    name: str = Field(min_length=1, description="Name of the object.")


class ExtraVolume(Model):
    """A volume that is mounted read-only into the trainer. Exactly one source is set."""

    name: str = Field(**LABEL.limits(50), description="Name of the volume.")
    mount_path: str = Field(
        **ABSOLUTE_PATH.limits(),
        description="Path in the trainer's container at which the volume is mounted.",
    )
    persistent_volume_claim: str | None = Field(None, description="Name of a PersistentVolumeClaim.")
    config_map: str | None = Field(None, description="Name of a ConfigMap.")


class LabelSelectorRequirement(Model):
    """One condition of a Kubernetes label selector."""

    key: str = Field(min_length=1, description="Key of the label.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(
        description="How the label is compared with the values."
    )
    values: list[str] | None = Field(
        None,
        max_length=64,
        description="With In, the allowed values of the label. With NotIn, the forbidden values.",
    )


class LabelSelector(Model):
    """A Kubernetes label selector. A pod must meet all its conditions."""

    match_labels: dict[str, str] | None = Field(None, description="Labels that a pod must have.")
    match_expressions: list[LabelSelectorRequirement] | None = Field(
        None, max_length=16, description="Conditions on labels that a pod must meet."
    )


class TopologySpreadConstraint(Model):
    """A Kubernetes topology spread constraint: how evenly pods spread over nodes, zones or the like."""

    max_skew: Int = Field(
        ge=1,
        le=2**31 - 1,
        description=(
            "How many more matching pods one topology domain may have than the domain with the fewest."
        ),
    )
    topology_key: str = Field(
        min_length=1,
        description=(
            "Key of the node label whose values are the topology domains, such as"
            " topology.kubernetes.io/zone."
        ),
    )
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"] = Field(
        description=(
            "What happens if no node meets the constraint. DoNotSchedule: the pod waits. ScheduleAnyway: the"
            " pod runs on a node that does not meet the constraint."
        )
    )
    label_selector: LabelSelector | None = Field(
        None,
        description=(
            "Selector of the pods that are counted. If absent, no pod is counted. All pods of runs have the"
            " label app.kubernetes.io/name: rft-trainer."
        ),
    )
    match_label_keys: list[str] | None = Field(
        None,
        max_length=16,
        description=(
            "Keys of labels. A pod is counted only if its values of these labels are equal to those of the"
            " run's pod."
        ),
    )
    min_domains: Int | None = Field(
        None,
        ge=1,
        le=2**31 - 1,
        description=(
            "Minimum number of topology domains that have nodes for the pod. While there are fewer domains,"
            " the domain with the fewest pods counts as empty. Used only with DoNotSchedule."
        ),
    )
    node_affinity_policy: Literal["Honor", "Ignore"] | None = Field(
        None,
        description=(
            "Honor: only nodes that the pod's node selector and affinity allow are counted. Ignore: all"
            " nodes."
        ),
    )
    node_taints_policy: Literal["Honor", "Ignore"] | None = Field(
        None, description="Honor: only nodes whose taints the pod tolerates are counted. Ignore: all nodes."
    )


class PodResourceClaim(Model):
    """A Kubernetes resource claim of the pod, by dynamic resource allocation. Exactly one source is set."""

    name: str = Field(**LABEL.limits(), description="Name of the claim within the pod, for gpuClaim.")
    resource_claim_name: str | None = Field(None, description="Name of a ResourceClaim.")
    resource_claim_template_name: str | None = Field(
        None, description="Name of a ResourceClaimTemplate, from which each pod gets a claim of its own."
    )


class Template(Model):
    """Changes to the trainer's pod, such as its image, labels, environment variables and volumes.

    There are no fields for hostPath, hostNetwork and security contexts.
    """

    image: str | None = Field(
        None,
        min_length=1,
        description="Image of the trainer. If absent, the operator's default image is used.",
    )
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = Field(
        None, description="Pull policy of the image."
    )
    image_pull_secrets: Annotated[list[LocalObjectRef], unique_by("name")] | None = Field(
        None,
        max_length=16,
        json_schema_extra=map_by("name"),
        description="Secrets with credentials for the image registry.",
    )
    service_account_name: str | None = Field(
        None,
        description=(
            "ServiceAccount of the pod. Its token is not mounted. But a cloud may use the ServiceAccount to"
            " give the trainer a cloud identity."
        ),
    )
    labels: dict[str, str] | None = Field(
        None, description="Additional labels of the child Job and its pods."
    )
    annotations: dict[str, str] | None = Field(
        None,
        max_length=512,
        description=(
            "Additional annotations of the child Job and its pods. Annotations that give a pod more rights"
            " are refused."
        ),
    )
    env: Annotated[list[EnvVar], unique_by("name")] | None = Field(
        None,
        max_length=128,
        json_schema_extra=map_by("name"),
        description="Additional environment variables of the trainer.",
    )
    affinity: dict[str, Any] | None = Field(
        None, description="Affinity of the pod, written as in a Kubernetes pod."
    )
    topology_spread_constraints: list[TopologySpreadConstraint] | None = Field(
        None, max_length=16, description="How pods are spread over zones, nodes or other topology domains."
    )
    priority_class_name: str | None = Field(None, description="PriorityClass of the pod.")
    runtime_class_name: str | None = Field(
        None,
        description="RuntimeClass of the pod, such as nvidia. If absent, the node's default runtime is used.",
    )
    scheduler_name: str | None = Field(
        None, description="Scheduler of the pod. If absent, it is the cluster's default scheduler."
    )
    resource_claims: Annotated[list[PodResourceClaim], unique_by("name")] | None = Field(
        None,
        max_length=32,
        json_schema_extra=map_by("name"),
        description="Resource claims that the trainer uses, such as one for GPUs or network devices.",
    )
    volumes: Annotated[list[ExtraVolume], unique_by("name")] | None = Field(
        None,
        max_length=32,
        json_schema_extra=map_by("name"),
        description="Additional volumes of the trainer, such as one with a model.",
    )
