"""Finds changes of a spec that make a run fit into the memory of its GPUs. A change sets one parameter."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import get_args

from annotated_types import Ge

from rft_api.parameters import Sampling, Training
from rft_planner.accelerators import ACCELERATORS, NVIDIA
from rft_planner.memory import MemoryDemand
from rft_planner.shapes import Shape
from rft_planner.split import divisions

LEAST_CONTEXT, LARGEST_POWER = 32, 30


def contexts(below: int, least: int) -> list[int]:
    """Return context lengths to try, in tokens, the longest first: all numbers 2^n and 3 · 2^n in a range.

    The range begins at ``least``, or at 32 if ``least`` is smaller, and ends before ``below``.
    """
    sizes = {size for power in range(5, LARGEST_POWER) for size in (2**power, 3 * 2 ** (power - 1))}
    return sorted((size for size in sizes if max(least, LEAST_CONTEXT) <= size < below), reverse=True)


def fixes(
    shape: Shape, work: MemoryDemand, memory: float, gpus: int, max_tokens: int, resource: str = NVIDIA
) -> list[str]:
    """Return changes of a spec, as texts such as ``spec.training.loraRank: 8``. Each alone makes the run fit.

    A run fits if its GPUs have enough memory for it. A parameter is lowered no further than needed. A
    proposed accelerator is the one with the least memory that is enough.

    - ``shape`` and ``work``: the model and the settings of the run, which decide the memory that it needs
    - ``memory``: the memory of one GPU, in bytes
    - ``gpus``: the number of GPUs of the run
    - ``max_tokens``: the maximum length of a completion. Proposed context lengths are longer than this.
    - ``resource``: the extended resource of the GPUs. Proposed accelerators have the same resource.
    """

    def fits(changed: MemoryDemand, size: float = memory, count: int = gpus) -> bool:
        return any(divisions(count, shape, changed, size))

    return [*_lowered(work, max_tokens, fits), *_larger(memory, gpus, resource, lambda *of: fits(work, *of))]


def _lowered(work: MemoryDemand, max_tokens: int, fits: Callable[[MemoryDemand], bool]) -> Iterator[str]:
    ranks = sorted(get_args(Training.model_fields["lora_rank"].annotation), reverse=True)
    least = next(
        limit.ge for limit in Sampling.model_fields["num_rollouts"].metadata if isinstance(limit, Ge)
    )
    fewer = range(work.rollouts - 1, int(str(least)) - 1, -1)
    tried = {
        "training.maxContextLength": [
            replace(work, context=size) for size in contexts(work.context, max_tokens + 1)
        ],
        "training.loraRank": [replace(work, rank=rank) for rank in ranks if rank < work.rank],
        "sampling.numRollouts": [replace(work, rollouts=count) for count in fewer],
    }
    values = {
        "training.maxContextLength": lambda changed: changed.context,
        "training.loraRank": lambda changed: changed.rank,
        "sampling.numRollouts": lambda changed: changed.rollouts,
    }
    for field, changes in tried.items():
        found = next((changed for changed in changes if fits(changed)), None)
        if found is not None:
            yield f"spec.{field}: {values[field](found)}"


def _larger(memory: float, gpus: int, resource: str, fits: Callable[[float, int], bool]) -> Iterator[str]:
    larger = sorted(
        (device.memory, name, min(gpus, device.node))
        for name, device in ACCELERATORS.items()
        if device.resource == resource and device.memory > memory
    )
    found = next((name for size, name, count in larger if fits(size, count)), None)
    if found is not None:
        yield f"spec.resources.accelerator.name: {found}"
