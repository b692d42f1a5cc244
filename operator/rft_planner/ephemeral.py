"""Calculates the ephemeral storage of the trainer's container: what a run writes to the disk of its node.

This is the content of the pod's emptyDirs, and the container's log. Volumes of claims do not count. The
amounts were not measured. The limit is generous, because the kubelet ends a pod that exceeds it.
"""

from typing import NamedTuple

from rft_api.job import RFTJobSpec
from rft_planner.memory import BF16, FLOAT32
from rft_planner.shapes import Shape
from rft_planner.sizes import GIB, mib

BASE = GIB / 2
"""Bytes of logs, temporary files and the copies of the adapter that the sampler loads."""
COMPILED = 4 * GIB
"""Bytes of kernels that torch and vLLM compile for a GPU and keep on the disk."""
RECORDS = GIB
"""Bytes of metrics, rollouts and rows in the run's folder, if the folder is on the node."""
SPARE = 8 * GIB
"""Bytes that are added to twice the request to get the limit."""


class NodeDisk(NamedTuple):
    """The request and the limit of a container for ephemeral storage, as Kubernetes quantities."""

    request: str
    limit: str


def on_node(spec: RFTJobSpec, shape: Shape | None, gpus: int) -> NodeDisk | None:
    """Return the ephemeral storage that a run with ``gpus`` GPUs requests, and its limit.

    If the spec sets a value, this value is both the request and the limit. Otherwise return ``None`` if the
    size of the model is not known.
    """
    asked = spec.resources.ephemeral_storage if spec.resources is not None else None
    if asked is not None:
        return NodeDisk(asked, asked)
    if shape is None:
        return None
    size = BASE + (COMPILED if gpus else 0.0) + _download(spec, shape) + _folder(spec, shape)
    return NodeDisk(mib(size), mib(2 * size + SPARE))


def _download(spec: RFTJobSpec, shape: Shape) -> float:
    """Return the bytes of the model's files on the node. Return 0 if they are not downloaded to the node."""
    on_volume = spec.model.name.startswith("/") or spec.model.cache is not None
    stored = FLOAT32 if shape.stored == "float32" else BF16
    return 0.0 if on_volume else stored * shape.parameters


def _folder(spec: RFTJobSpec, shape: Shape) -> float:
    """Return the bytes of the run's folder on the node, or 0 if the folder is not on the node.

    A checkpoint has the adapter and AdamW's two moments in float32. The folder has the newest checkpoints,
    the best one, and one that is being written.
    """
    if spec.storage.ephemeral is None:
        return 0.0
    training = spec.training
    adapter = shape.lora_parameters(training.lora_rank, feed_forward=training.lora_targets != "attention")
    return RECORDS + (spec.checkpoint.keep + 2) * 3 * FLOAT32 * adapter
