"""The models of the fields that say where the model, the data and the folder of the run are."""

import math
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from rft_api.base import Model
from rft_api.forms import COUNT, RELATIVE_PATH, SIZE, URI


def _is_scalar(value: object) -> object:
    """Refuse a value of another type with a single error. The union type alone would give one error per
    type.
    """
    if not isinstance(value, (str, int, float)) or (isinstance(value, float) and not math.isfinite(value)):
        raise PydanticCustomError("scalar_type", "Input should be a text, a number, true or false")
    return value


Scalar = Annotated[str | int | float | bool, BeforeValidator(_is_scalar)]
"""A value that is a string, a number or a boolean."""


class SecretKeyRef(Model):
    """A key of a Secret in the job's namespace."""

    name: str = Field(min_length=1, description="Name of the Secret.")
    key: str = Field(min_length=1, description="Key within the Secret.")


class AdapterSource(Model):
    """An adapter from which the training starts."""

    path: str = Field(min_length=1, description="Folder of the adapter on the run's volume.")


class ModelSource(Model):
    """The base model. Its weights never change."""

    name: str = Field(
        min_length=1,
        description="Hub id such as Qwen/Qwen2.5-7B-Instruct, or an absolute path on a mounted volume.",
    )
    revision: str | None = Field(None, description="Branch, tag or commit on the hub.")
    secret_ref: SecretKeyRef | None = Field(
        None, description="Hub token for gated models, by reference only."
    )
    chat_template_args: dict[str, Scalar] | None = Field(
        None, description="Extra arguments for the model's chat template."
    )
    parameters: str | None = Field(
        None,
        **COUNT.limits(),
        description="Parameter count such as 7B; needed only where the catalogue and config.json are silent.",
    )
    adapter: AdapterSource | None = Field(
        None, description="Adapter to start from; it is then also the KL reference."
    )


class ConfigMapSource(Model):
    """A file in a ConfigMap."""

    name: str = Field(min_length=1, description="Name of the ConfigMap.")
    key: str = Field("train.jsonl", min_length=1, description="Key that holds the JSONL rows.")


class VolumeFileSource(Model):
    """A file on a PersistentVolumeClaim."""

    claim_name: str = Field(min_length=1, description="Name of the PersistentVolumeClaim.")
    path: str = Field(
        min_length=1,
        **RELATIVE_PATH.limits(),
        description="Path of the JSONL file inside the volume, without a leading slash.",
    )


RowFormat = Literal["jsonl", "csv", "sharegpt"]
"""Format of the rows in a dataset file."""

Name = Annotated[str, Field(min_length=1)]


class Dataset(Model):
    """A dataset, whose rows have ``messages`` or ``prompt``, and the fields that graders read.

    Exactly one source is set.
    """

    config_map: ConfigMapSource | None = Field(None, description="Rows in a ConfigMap.")
    persistent_volume_claim: VolumeFileSource | None = Field(
        None, description="Rows in a file on a PersistentVolumeClaim."
    )
    uri: str | None = Field(
        None,
        **URI.limits(),
        description="Rows behind a URI (s3://, gs://, https://, hf://, file://); a plain path for rft run.",
    )
    format: RowFormat | None = Field(
        None,
        description="How the file is written: JSON lines (jsonl, if absent), CSV with a header (csv), or JSON"
        " lines with conversations of from and value (sharegpt). Any of them may be compressed by gzip.",
    )
    columns: dict[str, Name] | None = Field(
        None,
        description="Names of the file's columns by the names that rows have, such as {prompt: question}."
        " prompt is a text that becomes the user's message; messages are a whole conversation.",
    )


class VolumeClaim(Model):
    """An existing PersistentVolumeClaim."""

    claim_name: str = Field(min_length=1, description="Name of the PersistentVolumeClaim.")


class ClaimTemplate(Model):
    """A PersistentVolumeClaim the operator makes for this job."""

    size: str = Field(**SIZE.limits(), description="Requested size, e.g. 20Gi.")
    storage_class_name: str | None = Field(None, description="StorageClass; the cluster's default if absent.")
    access_modes: list[Literal["ReadWriteOnce", "ReadWriteMany", "ReadWriteOncePod"]] | None = Field(
        None, max_length=3, description="Access modes; ReadWriteOnce if absent."
    )
    retain: bool = Field(True, description="Keep the claim when the RFTJob is deleted.")


class Ephemeral(Model):
    """An emptyDir: checkpoints and adapters are lost with the pod."""


class Storage(Model):
    """Where the run's folder ``<namespace>/<name>-<uid8>`` is stored. Exactly one kind of storage is set."""

    persistent_volume_claim: VolumeClaim | None = Field(None, description="An existing claim.")
    claim_template: ClaimTemplate | None = Field(None, description="A claim made for this job.")
    ephemeral: Ephemeral | None = Field(None, description="An emptyDir; nothing survives the pod.")
