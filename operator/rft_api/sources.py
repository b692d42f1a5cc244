"""The pydantic classes that say where the base model, the dataset and the run's folder are stored."""

import math
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from rft_api.base import Model
from rft_api.forms import COUNT, RELATIVE_PATH, SIZE, URI


def _require_scalar(value: object) -> object:
    """Return ``value``, which must be a text, a finite number or a boolean. Else raise PydanticCustomError.

    Without this check, pydantic would report one error for each of the four types in ``Scalar``.
    """
    if not isinstance(value, (str, int, float)) or (isinstance(value, float) and not math.isfinite(value)):
        raise PydanticCustomError("scalar_type", "Input should be a text, a number, true or false")
    return value


Scalar = Annotated[str | int | float | bool, BeforeValidator(_require_scalar)]
"""A value that is a string, a number or a boolean."""


class SecretKeyRef(Model):
    """A reference to a key of a Secret in the job's namespace."""

    name: str = Field(min_length=1, description="Name of the Secret.")
    key: str = Field(min_length=1, description="Key in the Secret.")


class VolumeClaim(Model):
    """A reference to an existing PersistentVolumeClaim in the job's namespace."""

    claim_name: str = Field(min_length=1, description="Name of the PersistentVolumeClaim.")


class ClaimTemplate(Model):
    """A PersistentVolumeClaim that the operator creates for this job."""

    size: str = Field(**SIZE.limits(), description="Requested size, such as 20Gi.")
    storage_class_name: str | None = Field(
        None, description="StorageClass of the claim. If absent, the cluster's default is used."
    )
    access_modes: list[Literal["ReadWriteOnce", "ReadWriteMany", "ReadWriteOncePod"]] | None = Field(
        None, max_length=3, description="Access modes of the claim. If absent, ReadWriteOnce."
    )
    retain: bool = Field(True, description="Keep the PersistentVolumeClaim when the RFTJob is deleted.")


class ModelCache(Model):
    """The volume that keeps models from the hub after their download. Exactly one claim is set."""

    persistent_volume_claim: VolumeClaim | None = Field(
        None, description="An existing PersistentVolumeClaim, which several jobs may share."
    )
    claim_template: ClaimTemplate | None = Field(
        None, description="A PersistentVolumeClaim that the operator makes for this job."
    )


class AdapterSource(Model):
    """A LoRA adapter on the volume of the run, from which the training starts."""

    path: str = Field(min_length=1, description="Path of the adapter's folder on the volume of the run.")


class ModelSource(Model):
    """The base model, from the hub or from a folder. Training does not change its weights."""

    name: str = Field(
        min_length=1,
        description="Hub id such as Qwen/Qwen2.5-7B-Instruct, or an absolute path on a mounted volume.",
    )
    revision: str | None = Field(None, description="Branch, tag or commit of the model on the hub.")
    secret_ref: SecretKeyRef | None = Field(None, description="Secret with the hub token, for gated models.")
    cache: ModelCache | None = Field(
        None,
        description=(
            "Volume that keeps models from the hub. A retry does not download the model again. If several"
            " jobs share a claim, each model is downloaded only once for all these jobs. If absent, each pod"
            " downloads the model to its node."
        ),
    )
    chat_template_args: dict[str, Scalar] | None = Field(
        None, description="Additional arguments for the model's chat template."
    )
    parameters: str | None = Field(
        None,
        **COUNT.limits(),
        description=(
            "Number of parameters, such as 7B. It is needed only if neither the catalogue nor config.json"
            " gives the size."
        ),
    )
    adapter: AdapterSource | None = Field(
        None,
        description=(
            "Adapter from which training starts. The base model with this adapter is also the reference"
            " policy of the KL term."
        ),
    )


class ConfigMapSource(Model):
    """A dataset file in a ConfigMap."""

    name: str = Field(min_length=1, description="Name of the ConfigMap.")
    key: str = Field(
        "train.jsonl", min_length=1, description="Key of the ConfigMap with the rows as JSON lines."
    )


class VolumeFileSource(Model):
    """A dataset file on a PersistentVolumeClaim."""

    claim_name: str = Field(min_length=1, description="Name of the PersistentVolumeClaim.")
    path: str = Field(
        min_length=1,
        **RELATIVE_PATH.limits(),
        description="Path of the file with JSON lines on the volume, without a leading slash.",
    )


RowFormat = Literal["jsonl", "csv", "sharegpt"]
"""Format of the rows in a dataset file."""

Name = Annotated[str, Field(min_length=1)]


class Dataset(Model):
    """A dataset of prompts. Each row has ``messages`` or ``prompt``, and the fields that graders read.

    Exactly one source is set: ``configMap``, ``persistentVolumeClaim`` or ``uri``.
    """

    config_map: ConfigMapSource | None = Field(None, description="Key of a ConfigMap with the rows.")
    persistent_volume_claim: VolumeFileSource | None = Field(
        None, description="File on a PersistentVolumeClaim with the rows."
    )
    uri: str | None = Field(
        None,
        **URI.limits(),
        description=(
            "URI of the file with the rows (s3://, gs://, https://, hf://, file://). rft run also accepts a"
            " plain path."
        ),
    )
    format: RowFormat | None = Field(
        None,
        description=(
            "Format of the file. jsonl (the default): JSON lines. csv: CSV with a header. sharegpt: JSON"
            " lines with ShareGPT conversations, whose messages have the fields from and value. The file may"
            " be compressed by gzip."
        ),
    )
    columns: dict[str, Name] | None = Field(
        None,
        description=(
            "The file's column for each field of a row. For example, {prompt: question} reads the field"
            " prompt from the column question. The field prompt is the text of the user's message. The field"
            " messages is a whole conversation."
        ),
    )


class Ephemeral(Model):
    """An emptyDir for the run's folder. It is deleted, with all checkpoints, together with the pod."""


class Storage(Model):
    """The volume with the run's folder, for checkpoints and adapters. Exactly one kind of storage is set.

    The folder is ``<namespace>/<name>-<uid8>``. ``uid8`` is eight hexadecimal digits from a hash of the
    RFTJob's UID.
    """

    persistent_volume_claim: VolumeClaim | None = Field(
        None, description="An existing PersistentVolumeClaim."
    )
    claim_template: ClaimTemplate | None = Field(
        None, description="A PersistentVolumeClaim that the operator makes for this job."
    )
    ephemeral: Ephemeral | None = Field(None, description="An emptyDir. Its content is lost with the pod.")
