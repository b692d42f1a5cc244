"""How a run is divided over GPUs: the first trains, the others sample; one alone does both."""

import math
from dataclasses import dataclass

from rft_planner.memory import USABLE, Part, Workload, sampling, total, training
from rft_planner.shapes import Shape

MAX_GPUS = 16
MICRO_BATCH_TOKENS = 16_384
"""Tokens of a micro-batch where memory does not limit it: enough to fill a GPU."""


@dataclass(frozen=True)
class Split:
    """A division of a pod's GPUs that fits."""

    gpus: int
    samplers: int
    """GPUs that vLLM is split over."""
    micro_batch: int
    """Tokens of one forward pass of the trainer."""
    sampler_share: float
    """Share of a GPU's memory that vLLM may take."""
    parts: tuple[Part, ...]


def smallest(shape: Shape, work: Workload, memory: float) -> Split | None:
    """Return the fewest GPUs of ``memory`` bytes that hold the run, ``None`` where none do."""
    found = (fitted(count, shape, work, memory) for count in range(1, MAX_GPUS + 1))
    return next((split for split in found if split is not None and _uses_all(split)), None)


def _uses_all(split: Split) -> bool:
    return split.gpus == 1 or split.samplers == split.gpus - 1


def fitted(gpus: int, shape: Shape, work: Workload, memory: float) -> Split | None:
    """Return how the run fits on so many GPUs, with the largest micro-batch; ``None`` where it does not."""
    usable = USABLE * memory
    samplers = tensor_parallel(gpus - 1, shape)
    sampled = sampling(shape, work, samplers)
    left = usable - total(sampled) if gpus == 1 else usable
    if total(sampled) > usable:
        return None
    for tokens in _micro_batches(work):
        trained = training(shape, work, tokens)
        if total(trained) <= left:
            share = (usable - total(trained)) / memory if gpus == 1 else USABLE
            return Split(gpus, samplers, tokens, math.floor(share * 100) / 100, (*trained, *sampled))
    return None


def _micro_batches(work: Workload) -> list[int]:
    """Sizes to try, largest first: halves of the usual one, and at least one longest sequence."""
    halves = [MICRO_BATCH_TOKENS >> power for power in range(5)]
    return sorted({max(size, work.context) for size in halves}, reverse=True)


def tensor_parallel(gpus: int, shape: Shape) -> int:
    """Return over how many of ``gpus`` vLLM can split the model, at least 1.

    Its tensor parallelism gives every GPU whole attention heads and an equal part of the feed-forward
    columns; key-value heads are divided, or repeated where there are fewer of them than GPUs.
    """
    return next(size for size in range(max(1, gpus), 0, -1) if _splits(size, shape))


def _splits(size: int, shape: Shape) -> bool:
    columns = shape.expert_intermediate if shape.experts else shape.intermediate
    heads = shape.heads % size == 0 and (shape.kv_heads % size == 0 or size % shape.kv_heads == 0)
    return heads and columns % size == 0
