"""Divides GPUs between training and sampling. The first GPUs train, the others sample; one GPU does both."""

import math
from dataclasses import dataclass

from rft_planner.memory import USABLE, MemoryDemand, Part, sampling, total, training
from rft_planner.shapes import Shape

MAX_GPUS = 16
MICRO_BATCH_TOKENS = 16_384
"""Number of tokens in a micro-batch if memory does not limit it. It is enough to use a GPU fully."""


@dataclass(frozen=True)
class Split:
    """A division of a pod's GPUs between training and sampling. A single GPU does both."""

    gpus: int
    trainers: int
    """Number of GPUs that train."""
    samplers: int
    """Number of GPUs that sample."""
    micro_batch: int
    """Number of tokens in one forward pass of the trainer, on each GPU that trains."""
    sampler_share: float
    """Share of a GPU's memory that vLLM may use."""
    parts: tuple[Part, ...]


def smallest(shape: Shape, work: MemoryDemand, memory: float) -> Split | None:
    """Return the division with the fewest GPUs of ``memory`` bytes on which the run fits, or ``None``."""
    found = (fitted(count, shape, work, memory) for count in range(1, MAX_GPUS + 1))
    return next((split for split in found if split is not None), None)


def fitted(gpus: int, shape: Shape, work: MemoryDemand, memory: float) -> Split | None:
    """Return a division of ``gpus`` GPUs of ``memory`` bytes on which the run fits, else ``None``.

    The division with the largest micro-batches is chosen. If several have the same micro-batches, it is the
    one with the most GPUs for sampling, because sampling is the longer part of a step.
    """
    if gpus == 1:
        return _together(shape, work, memory)
    return max(divisions(gpus, shape, work, memory), key=lambda split: split.micro_batch, default=None)


def divisions(gpus: int, shape: Shape, work: MemoryDemand, memory: float) -> list[Split]:
    """Return the divisions with separate GPUs for each role on which the run fits, most samplers first."""
    sizes = sorted({tensor_parallel(count, shape) for count in range(1, gpus)}, reverse=True)
    found = (_apart(gpus - size, size, shape, work, memory) for size in sizes)
    return [split for split in found if split is not None]


def _together(shape: Shape, work: MemoryDemand, memory: float) -> Split | None:
    """Return the division for one GPU with both roles, or ``None``. vLLM gets the memory left by training."""
    usable, sampled = USABLE * memory, sampling(shape, work)
    for tokens in micro_batches(work):
        trained = training(shape, work, tokens)
        if total(trained) + total(sampled) <= usable:
            share = (usable - total(trained)) / memory
            return Split(1, 1, 1, tokens, _floor(share), (*trained, *sampled))
    return None


def _apart(trainers: int, samplers: int, shape: Shape, work: MemoryDemand, memory: float) -> Split | None:
    """Return the division with separate GPUs for each role, or ``None`` if the run does not fit."""
    usable, sampled = USABLE * memory, sampling(shape, work, samplers)
    if total(sampled) > usable:
        return None
    for tokens in micro_batches(work):
        trained = training(shape, work, tokens, trainers)
        if total(trained) <= usable:
            return Split(
                trainers + samplers, trainers, samplers, tokens, _floor(USABLE), (*trained, *sampled)
            )
    return None


def _floor(share: float) -> float:
    return math.floor(share * 100) / 100


def micro_batches(work: MemoryDemand) -> list[int]:
    """Return micro-batch sizes to try, in tokens, the largest first. Each holds the longest sequence."""
    halves = [MICRO_BATCH_TOKENS >> power for power in range(5)]
    return sorted({max(size, work.context) for size in halves}, reverse=True)


def tensor_parallel(gpus: int, shape: Shape) -> int:
    """Return the largest number of GPUs, up to ``gpus``, over which vLLM can split the model.

    Tensor parallelism gives every GPU whole attention heads and an equal part of the feed-forward columns.
    Key-value heads are divided, or repeated if there are more GPUs than heads.
    """
    return next(size for size in range(max(1, gpus), 0, -1) if _splits(size, shape))


def _splits(size: int, shape: Shape) -> bool:
    columns = shape.expert_intermediate if shape.experts else shape.intermediate
    heads = shape.heads % size == 0 and (shape.kv_heads % size == 0 or size % shape.kv_heads == 0)
    return heads and columns % size == 0
