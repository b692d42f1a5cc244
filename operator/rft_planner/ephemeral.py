"""Calculates how much ephemeral storage the trainer's container requests, for data on the disk of the node.

These data are the files in the pod's emptyDirs and the container's log. Volumes of PersistentVolumeClaims do
not count. The amounts were not measured. The limit is much higher than the request, because the kubelet
evicts a pod that exceeds it.
"""

from typing import NamedTuple

from rft_api.job import RFTJobSpec
from rft_planner.memory import BF16, FLOAT32
from rft_planner.shapes import Shape
from rft_planner.sizes import GIB, mib

BASE = GIB / 2
"""Bytes of logs, temporary files and the copies of the adapter that the sampler reads from the disk."""
COMPILED = 4 * GIB
"""Bytes of kernels that torch and vLLM compile for a GPU and keep on the disk."""
RECORDS = GIB
"""Bytes of metrics, rollouts and dataset rows in the run's folder, if the folder is on the node's disk."""
SPARE = 8 * GIB
"""Bytes that are added to twice the request to get the limit."""


class NodeDisk(NamedTuple):
    """A container's request and limit of ephemeral storage, as Kubernetes quantities such as ``20480Mi``."""

    request: str
    limit: str


def on_node(spec: RFTJobSpec, shape: Shape | None, gpus: int) -> NodeDisk | None:
    """Return the request and the limit of ephemeral storage for a run with ``gpus`` GPUs.

    If the spec sets ``resources.ephemeralStorage``, this value is both the request and the limit. Otherwise
    the amounts are calculated. Return ``None`` if this is not possible, because ``shape`` is None.
    """
    asked = spec.resources.ephemeral_storage if spec.resources is not None else None
    if asked is not None:
        return NodeDisk(asked, asked)
    if shape is None:
        return None
    size = BASE + (COMPILED if gpus else 0.0) + _download(spec, shape) + _folder(spec, shape)
    return NodeDisk(mib(size), mib(2 * size + SPARE))


def _download(spec: RFTJobSpec, shape: Shape) -> float:
    """Return the bytes of the model's files that are downloaded to the disk of the node.

    It is 0 if ``spec.model.name`` is a path, or if ``spec.model.cache`` has a volume for the files.
    """
    on_volume = spec.model.name.startswith("/") or spec.model.cache is not None
    stored = FLOAT32 if shape.stored == "float32" else BF16
    return 0.0 if on_volume else stored * shape.parameters


def _folder(spec: RFTJobSpec, shape: Shape) -> float:
    """Return the bytes of the run's folder on the disk of the node, or 0 if the folder is on a volume.

    The folder has the newest ``checkpoint.keep`` checkpoints, the best one, and one that is being written. A
    checkpoint has the adapter and AdamW's two moments in float32.
    """
    if spec.storage.ephemeral is None:
        return 0.0
    training = spec.training
    adapter = shape.lora_parameters(training.lora_rank, feed_forward=training.lora_targets != "attention")
    return RECORDS + (spec.checkpoint.keep + 2) * 3 * FLOAT32 * adapter
