"""Resources of the trainer's pod, and changes that a job may make to this pod."""

from typing import Annotated, Any, Literal

from pydantic import Field

from rft_api.base import Int, Model, map_by, unique_by
from rft_api.forms import ABSOLUTE_PATH, IDENTIFIER, LABEL, QUANTITY
from rft_api.sources import SecretKeyRef


class Accelerator(Model):
    """The kind of GPU that the plan is made for."""

    name: str | None = Field(
        None, description="Name of the GPU in the catalogue, such as nvidia-h100-80gb, or cpu."
    )
    memory: str | None = Field(
        None,
        **QUANTITY.limits(),
        description="Memory of one GPU. It is needed for a GPU that is not in the catalogue.",
    )


class Toleration(Model):
    """A Kubernetes toleration."""

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
    """Values that replace those of the plan. The plan decides every absent field."""

    accelerator: Accelerator | None = Field(
        None, description="Kind of GPU. If absent, it is chosen by the nodes of the cluster."
    )
    gpus: Int | None = Field(
        None,
        ge=0,
        le=16,
        description=(
            "Number of GPUs of the pod. It is used even if the plan needs another number; then there is a"
            " warning. 0 means a run on the CPU."
        ),
    )
    cpu: str | None = Field(None, **QUANTITY.limits(), description="CPU request of the trainer.")
    memory: str | None = Field(
        None, **QUANTITY.limits(), description="Memory request and limit of the trainer."
    )
    shm: str | None = Field(None, **QUANTITY.limits(), description="Size of /dev/shm.")
    node_selector: dict[str, str] | None = Field(
        None, description="Labels that a node must have to run the pod."
    )
    tolerations: list[Toleration] | None = Field(
        None, max_length=64, description="Taints of nodes that the pod tolerates."
    )
    price_per_gpu_hour: float | None = Field(
        None, ge=0, description="Price of one GPU-hour in your currency, for the cost estimate."
    )


class EnvVar(Model):
    """An environment variable of the trainer container."""

    name: str = Field(**IDENTIFIER.limits(), description="Name of the environment variable.")
    value: str | None = Field(
        None, description="Value of the variable. If absent, it is empty. Use secretRef for a secret value."
    )
    secret_ref: SecretKeyRef | None = Field(None, description="Secret with the value.")


class LocalObjectRef(Model):
    """A Kubernetes object in the job's namespace, by its name."""

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


class Template(Model):
    """Changes to the trainer's pod. hostPath, hostNetwork and security contexts are not offered."""

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
            "ServiceAccount of the pod. Its token is not mounted; a cloud may give the trainer its identity."
        ),
    )
    labels: dict[str, str] | None = Field(
        None, description="Additional labels of the child Job and its pods."
    )
    annotations: dict[str, str] | None = Field(
        None,
        max_length=512,
        description=(
            "Additional annotations of the child Job and its pods. Annotations that widen a pod's rights are"
            " refused."
        ),
    )
    env: Annotated[list[EnvVar], unique_by("name")] | None = Field(
        None,
        max_length=128,
        json_schema_extra=map_by("name"),
        description="Additional environment variables of the trainer.",
    )
    affinity: dict[str, Any] | None = Field(
        None, description="Affinity of the pod, in the form of a Kubernetes pod."
    )
    priority_class_name: str | None = Field(None, description="PriorityClass of the pod.")
    volumes: Annotated[list[ExtraVolume], unique_by("name")] | None = Field(
        None,
        max_length=32,
        json_schema_extra=map_by("name"),
        description="Additional volumes of the trainer, such as one with a model.",
    )
