"""Calculates the ephemeral storage of the trainer's container: what a run writes to its node, beside claims.

This is what lies in the pod's emptyDirs on the node's disk, and the container's log. The amounts were not
measured. The limit is generous, because the kubelet ends a pod that exceeds it.
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
"""Bytes of metrics, rollouts and rows in the run's folder, if that is on the node."""
SPARE = 8 * GIB
"""Bytes that the limit has beyond twice the request."""


class NodeDisk(NamedTuple):
    """The request and the limit of a container for ephemeral storage, as Kubernetes quantities."""

    request: str
    limit: str


def on_node(spec: RFTJobSpec, shape: Shape | None, gpus: int) -> NodeDisk | None:
    """Return the ephemeral storage of a run, or ``None`` if the size of the model is not known.

    A value of the spec is both the request and the limit.
    """
    asked = spec.resources.ephemeral_storage if spec.resources is not None else None
    if asked is not None:
        return NodeDisk(asked, asked)
    if shape is None:
        return None
    size = BASE + (COMPILED if gpus else 0.0) + _download(spec, shape) + _folder(spec, shape)
    return NodeDisk(mib(size), mib(2 * size + SPARE))


def _download(spec: RFTJobSpec, shape: Shape) -> float:
    """Return the bytes of the model, if it is downloaded to the node."""
    on_volume = spec.model.name.startswith("/") or spec.model.cache is not None
    stored = FLOAT32 if shape.stored == "float32" else BF16
    return 0.0 if on_volume else stored * shape.parameters


def _folder(spec: RFTJobSpec, shape: Shape) -> float:
    """Return the bytes of the run's folder, if it is on the node.

    A checkpoint has the adapter and AdamW's two moments in float32. Beside the newest ones there are the best
    one and one that is being written.
    """
    if spec.storage.ephemeral is None:
        return 0.0
    training = spec.training
    adapter = shape.lora_parameters(training.lora_rank, feed_forward=training.lora_targets != "attention")
    return RECORDS + (spec.checkpoint.keep + 2) * 3 * FLOAT32 * adapter
