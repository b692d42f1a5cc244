"""Resources of the trainer's pod, and changes that a job may make to this pod."""

from typing import Annotated, Any, Literal

from pydantic import Field

from rft_api.base import Int, Model, map_by, unique_by
from rft_api.forms import ABSOLUTE_PATH, IDENTIFIER, LABEL, QUANTITY
from rft_api.sources import SecretKeyRef


class Accelerator(Model):
    """The kind of GPU that the plan is made for."""

    name: str | None = Field(None, description="Name from the catalogue, e.g. nvidia-h100-80gb, or cpu.")
    memory: str | None = Field(
        None, **QUANTITY.limits(), description="Memory of one GPU, for any other kind."
    )


class Toleration(Model):
    """A Kubernetes toleration."""

    key: str | None = Field(None, description="Taint key; every key if absent.")
    operator: Literal["Exists", "Equal"] = Field("Equal", description="Exists or Equal.")
    value: str | None = Field(None, description="Taint value.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        None, description="Taint effect; every effect if absent."
    )
    toleration_seconds: Int | None = Field(None, ge=0, description="For NoExecute, in seconds.")


class Resources(Model):
    """Values that replace those of the plan. The plan decides every absent field."""

    accelerator: Accelerator | None = Field(None, description="GPU kind; from the cluster's nodes if absent.")
    gpus: Int | None = Field(
        None,
        ge=0,
        le=16,
        description="GPUs of the pod; obeyed, and warned about when the plan disagrees. 0: CPU.",
    )
    cpu: str | None = Field(None, **QUANTITY.limits(), description="CPU request.")
    memory: str | None = Field(None, **QUANTITY.limits(), description="Memory request and limit.")
    shm: str | None = Field(None, **QUANTITY.limits(), description="Size of /dev/shm.")
    node_selector: dict[str, str] | None = Field(None, description="Node labels the pod needs.")
    tolerations: list[Toleration] | None = Field(None, max_length=64, description="Taints the pod tolerates.")
    price_per_gpu_hour: float | None = Field(
        None, ge=0, description="For the cost estimate, in your currency."
    )


class EnvVar(Model):
    """An environment variable of the trainer container."""

    name: str = Field(**IDENTIFIER.limits(), description="Name.")
    value: str | None = Field(None, description="Value; empty if absent. Secrets belong in secretRef.")
    secret_ref: SecretKeyRef | None = Field(None, description="Where the value is, if it is secret.")


class LocalObjectRef(Model):
    """A Kubernetes object in the job's namespace, by its name."""

    name: str = Field(min_length=1, description="Name of the object.")


class ExtraVolume(Model):
    """A volume that is mounted read-only into the trainer. Exactly one source is set."""

    name: str = Field(**LABEL.limits(50), description="Volume name.")
    mount_path: str = Field(**ABSOLUTE_PATH.limits(), description="Where it appears.")
    persistent_volume_claim: str | None = Field(None, description="Name of a claim.")
    config_map: str | None = Field(None, description="Name of a ConfigMap.")


class Template(Model):
    """Changes to the trainer's pod. hostPath, hostNetwork and security contexts are not offered."""

    image: str | None = Field(
        None, min_length=1, description="Trainer image; the operator's default if absent."
    )
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = Field(
        None, description="When the image is pulled."
    )
    image_pull_secrets: Annotated[list[LocalObjectRef], unique_by("name")] | None = Field(
        None, max_length=16, json_schema_extra=map_by("name"), description="Registry credentials."
    )
    service_account_name: str | None = Field(None, description="ServiceAccount; no token of it is mounted.")
    labels: dict[str, str] | None = Field(None, description="Extra labels of Job and pods.")
    annotations: dict[str, str] | None = Field(None, description="Extra annotations of Job and pods.")
    env: Annotated[list[EnvVar], unique_by("name")] | None = Field(
        None, max_length=128, json_schema_extra=map_by("name"), description="Extra environment variables."
    )
    affinity: dict[str, Any] | None = Field(None, description="Kubernetes affinity, as in a pod.")
    priority_class_name: str | None = Field(None, description="PriorityClass of the pod.")
    volumes: Annotated[list[ExtraVolume], unique_by("name")] | None = Field(
        None, max_length=32, json_schema_extra=map_by("name"), description="Extra volumes, e.g. with a model."
    )
