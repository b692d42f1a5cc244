"""How a run is divided over GPUs: the first ones train, the others sample; one alone does both."""

import math
from dataclasses import dataclass

from rft_planner.memory import USABLE, Part, Workload, sampling, total, training
from rft_planner.shapes import Shape

MAX_GPUS = 16
MICRO_BATCH_TOKENS = 16_384
"""Tokens of a micro-batch where memory does not limit it: enough to fill a GPU."""


@dataclass(frozen=True)
class Split:
    """A division of a pod's GPUs that fits. One GPU alone does both."""

    gpus: int
    trainers: int
    """GPUs that the training is divided over."""
    samplers: int
    """GPUs that vLLM is divided over."""
    micro_batch: int
    """Tokens of one forward pass of the trainer, on each of its GPUs."""
    sampler_share: float
    """Share of a GPU's memory that vLLM may take."""
    parts: tuple[Part, ...]


def smallest(shape: Shape, work: Workload, memory: float) -> Split | None:
    """Return the fewest GPUs of ``memory`` bytes that hold the run, ``None`` where none do."""
    found = (fitted(count, shape, work, memory) for count in range(1, MAX_GPUS + 1))
    return next((split for split in found if split is not None), None)


def fitted(gpus: int, shape: Shape, work: Workload, memory: float) -> Split | None:
    """Return how the run fits on so many GPUs of ``memory`` bytes; ``None`` where it does not.

    Sampling gets as many as leave training room for its micro-batches: it is the longer half of a step.
    """
    if gpus == 1:
        return _together(shape, work, memory)
    return max(divisions(gpus, shape, work, memory), key=lambda split: split.micro_batch, default=None)


def divisions(gpus: int, shape: Shape, work: Workload, memory: float) -> list[Split]:
    """Return the ways in which the roles fit on GPUs of their own, the most samplers first."""
    sizes = sorted({tensor_parallel(count, shape) for count in range(1, gpus)}, reverse=True)
    found = (_apart(gpus - size, size, shape, work, memory) for size in sizes)
    return [split for split in found if split is not None]


def _together(shape: Shape, work: Workload, memory: float) -> Split | None:
    """Both roles on one GPU: vLLM's share is what training leaves, and at least what it needs."""
    usable, sampled = USABLE * memory, sampling(shape, work)
    for tokens in micro_batches(work):
        trained = training(shape, work, tokens)
        if total(trained) + total(sampled) <= usable:
            share = (usable - total(trained)) / memory
            return Split(1, 1, 1, tokens, _floor(share), (*trained, *sampled))
    return None


def _apart(trainers: int, samplers: int, shape: Shape, work: Workload, memory: float) -> Split | None:
    """Each role on GPUs of its own."""
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


def micro_batches(work: Workload) -> list[int]:
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
