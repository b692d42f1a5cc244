"""Divides the GPUs of a pod between training and sampling.

There are two kinds of divisions:

- Apart: the first GPUs train, and the others sample.
- Shared: all GPUs sample. The first ones also train, in turns with sampling. A single GPU is always shared.

The GPUs that sample are divided among samplers of equal size. Each sampler is a vLLM server with the whole
model, which it splits over its GPUs by tensor parallelism. Prompts are divided among the samplers.

If several GPUs train, the base model is either *whole* on each of them, or its layers are *divided* among
them. With a whole base no GPU waits for layers of another GPU. So the whole base is used if it fits into the
memory of a GPU, unless a step would then take over 10 % longer.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from rft_planner.memory import USABLE, MemoryDemand, Part, sampling, total, training
from rft_planner.shapes import Shape

MAX_GPUS = 16
"""Largest number of GPUs of a pod. Most nodes have fewer: see ``accelerators.Device``."""
MICRO_BATCH_TOKENS = 16_384
"""Number of tokens in a micro-batch if the memory is enough. This number already uses a GPU fully, so a
larger micro-batch would not be faster."""


class Roles(NamedTuple):
    """The numbers that describe a division of a pod's GPUs between training and sampling.

    They are the numbers of all GPUs, of GPUs that train, of GPUs that sample, and of vLLM servers
    (``samplers``).
    """

    gpus: int
    trainers: int
    sampler_gpus: int
    samplers: int


@dataclass(frozen=True)
class Split:
    """A division of the GPUs of a pod between training and sampling, with sizes that fit into the memory."""

    gpus: int
    trainers: int
    """Number of GPUs that train."""
    sampler_gpus: int
    """Number of GPUs that sample."""
    micro_batch: int
    """Number of tokens in one forward pass of the trainer, on each GPU that trains."""
    sampler_share: float
    """Share of a GPU's memory that vLLM may use."""
    parts: tuple[Part, ...]
    """The parts of the memory that training and sampling need on a GPU."""
    samplers: int = 1
    """Number of samplers, the vLLM servers. Each has ``sampler_gpus // samplers`` GPUs."""
    divided: bool = False
    """Whether the GPUs that train divide the layers of the base model. If not, each of them has the whole
    base."""

    @property
    def roles(self) -> Roles:
        """The numbers of all GPUs, of GPUs that train, of GPUs that sample, and of samplers.

        If these numbers are equal for two divisions, the divisions differ only in ``divided``, and in the
        sizes that follow from ``divided``.
        """
        return Roles(self.gpus, self.trainers, self.sampler_gpus, self.samplers)

    @property
    def tensor_parallel(self) -> int:
        """Number of GPUs over which one sampler splits the model."""
        return self.sampler_gpus // self.samplers

    @property
    def shared(self) -> bool:
        """Whether GPUs that train also sample, so that sampling and training take turns."""
        return self.trainers + self.sampler_gpus > self.gpus

    def cache_bytes(self, memory: float) -> float:
        """Return the bytes of vLLM's key-value cache on each GPU that samples.

        ``memory`` is the memory of one GPU, in bytes. vLLM may use the share ``sampler_share`` of it. The
        cache gets the part of this share that vLLM does not need for weights and temporary memory.
        """
        sampled = [part for part in self.parts if part.name.startswith("sampling")]
        fixed = sum(part.bytes for part in sampled if "key-value cache" not in part.name)
        return max(0.0, self.sampler_share * memory - fixed)


class Cost(NamedTuple):
    """The cost of a division of the GPUs between training and sampling.

    ``seconds`` is the time of a step. ``idle`` is the share of the step in which GPUs are idle, from 0 to 1.
    """

    seconds: float
    idle: float


Costs = Callable[[Split], Cost]
"""A function that estimates the cost of a division."""
_Time = TypeVar("_Time")
LITTLE_IDLE = 0.2
"""If GPUs are idle for more than this share of a step, the plan gives the reason."""
_AS_FAST = 1.1
"""Two divisions of the GPUs count as equally fast if the times of their steps differ by at most this
factor."""


def smallest(
    shape: Shape, work: MemoryDemand, memory: float, most: int = MAX_GPUS, costs: Costs | None = None
) -> Split | None:
    """Return a division of the fewest GPUs on which the run fits, or ``None`` if ``most`` GPUs are too few.

    The division says which GPUs train and which sample.

    - ``shape`` and ``work`` are the model and the settings of the run, which decide the memory that it needs.
    - ``memory`` is the memory of one GPU, in bytes.
    - ``most`` is the largest allowed number of GPUs.
    - ``costs`` estimates the cost of a division. None: the speed of the GPUs is not known.
    """
    found = (fitted(count, shape, work, memory, costs) for count in range(1, most + 1))
    return next((split for split in found if split is not None), None)


def fitted(
    gpus: int, shape: Shape, work: MemoryDemand, memory: float, costs: Costs | None = None
) -> Split | None:
    """Return the best division of ``gpus`` GPUs between training and sampling.

    Return ``None`` if the run does not fit on these GPUs. ``memory`` is the memory of one GPU, in bytes.
    ``costs`` estimates the cost of a division, or is None if the speed of the GPUs is not known. Without
    ``costs`` these rules decide. A later rule decides only if the earlier ones leave several divisions.

    1. Training and sampling have separate GPUs.
    2. The micro-batches are the largest.
    3. The most GPUs sample, because sampling is the longer part of a step.
    4. The samplers are the fewest.

    Before this, ``preferred`` decides whether the GPUs that train divide the layers of the base model.
    Without ``costs`` they divide them only if the whole base model does not fit on each of these GPUs.
    """
    found = choices(gpus, shape, work, memory, costs)
    if costs is not None:
        return _best(found)
    return min((split for split, _ in found), key=_unmeasured, default=None)


def choices(
    gpus: int, shape: Shape, work: MemoryDemand, memory: float, costs: Costs | None
) -> list[tuple[Split, Cost]]:
    """Return the divisions of ``gpus`` GPUs between training and sampling on which the run fits.

    Each division has its cost: the time of a step, and how long GPUs are idle in it. Two divisions
    may differ only in the base model, which is whole on each GPU that trains, or divided among these GPUs.
    Then ``preferred`` leaves one of the two out. Without ``costs`` all costs are 0, so the division with the
    whole base stays.
    """
    cost = costs or (lambda _: Cost(0.0, 0.0))
    found = [(split, cost(split)) for split in divisions(gpus, shape, work, memory)]
    return preferred(found, lambda cost: cost.seconds)


def preferred(
    found: Sequence[tuple[Split, _Time]], seconds: Callable[[_Time], float]
) -> list[tuple[Split, _Time]]:
    """Return ``found`` without the worse one of any two divisions that differ only in the base model.

    In such a pair, the base model is either whole on each GPU that trains, or divided among these GPUs. A
    divided base leaves more memory for micro-batches. On GPUs that train and sample, it also leaves more for
    sampling. So it may be faster even if the whole base fits. The division with the whole base is kept if its
    step is at most 10 % longer, because the estimate does not include all the time in which GPUs exchange
    data.

    ``found`` has pairs of a division and a value, from which ``seconds`` returns the seconds of a step.
    """
    whole = {split.roles: seconds(time) for split, time in found if not split.divided}
    divided = {split.roles: seconds(time) for split, time in found if split.divided}

    def divide(roles: Roles) -> bool:
        return whole.get(roles, math.inf) > _AS_FAST * divided.get(roles, math.inf)

    return [(split, time) for split, time in found if split.divided == divide(split.roles)]


def _unmeasured(split: Split) -> tuple[float, ...]:
    return (split.shared, -split.micro_batch, -split.sampler_gpus, split.samplers)


def _best(known: Sequence[tuple[Split, Cost]]) -> Split | None:
    """Return the best division of the GPUs, or None if ``known`` is empty.

    Only divisions whose step is at most 10 % longer than the shortest one are compared. The best one is the
    division whose GPUs are idle least, where shares up to 20 % (``LITTLE_IDLE``) count as equal. Of several
    such divisions, it is the one with the fewest GPUs per sampler, and then the one with the fewest GPUs for
    training, because the estimate does not include all the time in which GPUs exchange data.
    """
    shortest = min((cost.seconds for _, cost in known), default=0.0)
    near = [(split, cost) for split, cost in known if cost.seconds <= _AS_FAST * shortest]

    def order(pair: tuple[Split, Cost]) -> tuple[float, ...]:
        split, cost = pair
        much = cost.idle if cost.idle > LITTLE_IDLE else 0.0
        return (round(much, 2), split.tensor_parallel, split.trainers, cost.seconds)

    return min(near, key=order)[0] if near else None


def divisions(gpus: int, shape: Shape, work: MemoryDemand, memory: float) -> Iterator[Split]:
    """Yield all ways to divide ``gpus`` GPUs between training and sampling for which the memory is enough.

    ``memory`` is the memory of one GPU, in bytes.
    """
    # Often the GPUs are too few even for training alone, or for sampling alone. This check is quick.
    tokens, usable = micro_batches(work)[-1], USABLE * memory
    # Each of several GPUs with a whole base needs as much as a single GPU that trains, plus buffers.
    trained = min(total(training(shape, work, tokens, count)) for count in (1, gpus))
    sampled = total(sampling(shape, work, tensor_parallel(gpus, shape)))
    if trained <= usable and sampled <= usable:
        yield from apart(gpus, shape, work, memory)
        yield from shared(gpus, shape, work, memory)


def apart(gpus: int, shape: Shape, work: MemoryDemand, memory: float) -> Iterator[Split]:
    """Yield the divisions of ``gpus`` GPUs in which each GPU either trains or samples, and the run fits.

    ``memory`` is the memory of one GPU, in bytes. Divisions with more GPUs for sampling come first.
    """
    for sampler_gpus in range(gpus - 1, 0, -1):
        for samplers in range(1, sampler_gpus + 1):
            if sampler_gpus % samplers == 0 and _splits(sampler_gpus // samplers, shape):
                roles = Roles(gpus, gpus - sampler_gpus, sampler_gpus, samplers)
                yield from _placed(roles, shape, work, memory)


def shared(gpus: int, shape: Shape, work: MemoryDemand, memory: float) -> Iterator[Split]:
    """Yield the divisions in which all ``gpus`` GPUs sample, and some or all also train, and the run fits.

    A GPU that also trains does so in turns with sampling. ``memory`` is the memory of one GPU, in bytes.
    """
    for samplers in range(1, gpus + 1):
        if gpus % samplers == 0 and _splits(gpus // samplers, shape):
            for trainers in range(gpus, 0, -1):
                yield from _placed(Roles(gpus, trainers, gpus, samplers), shape, work, memory)


def _placed(roles: Roles, shape: Shape, work: MemoryDemand, memory: float) -> Iterator[Split]:
    """Yield the splits of a run's GPUs for which the memory is enough: 0, 1 or 2 splits.

    ``roles`` has the number of GPUs that train and that sample. In the first split, each training GPU has the
    whole base model. In the second split, the base model is sharded over the training GPUs. If both fit, the
    second one is left out, unless it has larger micro-batches or more memory for sampling.
    """
    whole = _filled(roles, shape, work, memory, divided=False)
    if whole is not None:
        yield whole
    if roles.trainers > 1:
        divided = _filled(roles, shape, work, memory, divided=True)
        if divided is not None and (whole is None or _room(divided) > _room(whole)):
            yield divided


def _room(split: Split) -> tuple[int, float]:
    return split.micro_batch, split.sampler_share


def _filled(roles: Roles, shape: Shape, work: MemoryDemand, memory: float, *, divided: bool) -> Split | None:
    """Return the division with the numbers in ``roles``, and with the largest micro-batch that fits.

    Return ``None`` if no micro-batch fits into the memory. On GPUs that train and sample, the sampler gets
    the memory that training does not use. ``divided`` says whether the GPUs that train divide the layers of
    the base model.
    """
    gpus, trainers, sampler_gpus, samplers = roles
    together = trainers + sampler_gpus > gpus
    usable, sampled = USABLE * memory, sampling(shape, work, sampler_gpus // samplers, not together)
    beside = total(sampled) if together else 0.0
    if total(sampled) > usable:
        return None
    for tokens in micro_batches(work, trainers):
        trained = training(shape, work, tokens, trainers, divided)
        if total(trained) + beside <= usable:
            left = usable - total(trained) if together else usable
            return Split(
                gpus,
                trainers,
                sampler_gpus,
                tokens,
                _floor(left / memory),
                (*trained, *sampled),
                samplers,
                divided,
            )
    return None


def _floor(share: float) -> float:
    return math.floor(share * 100) / 100


def micro_batches(work: MemoryDemand, trainers: int = 1) -> list[int]:
    """Return the micro-batch sizes to try, in tokens, the largest first.

    Each size has room for the longest sequence. With several GPUs that train (``trainers``), a size is at
    most a step's batch divided by their number, so that all of them have work. It is larger only if the
    longest sequence needs more.
    """
    most = MICRO_BATCH_TOKENS
    if trainers > 1 and work.batch:
        most = min(most, max(work.context, -(-work.batch // trainers)))
    halves = [min(most, MICRO_BATCH_TOKENS >> power) for power in range(5)]
    return sorted({max(size, work.context) for size in halves}, reverse=True)


def tensor_parallel(gpus: int, shape: Shape) -> int:
    """Return the largest number of GPUs, up to ``gpus``, over which vLLM can split the model.

    Tensor parallelism gives every GPU whole attention heads and an equal part of the feed-forward columns.
    Key-value heads are divided, or repeated if there are more GPUs than key-value heads.
    """
    return next(size for size in range(max(1, gpus), 0, -1) if _splits(size, shape))


def _splits(size: int, shape: Shape) -> bool:
    columns = shape.expert_intermediate if shape.experts else shape.intermediate
    heads = shape.heads % size == 0 and (shape.kv_heads % size == 0 or size % shape.kv_heads == 0)
    return heads and columns % size == 0
