"""Calculates the CPU and memory requests of the trainer's container.

By default the memory is enough for the largest micro-batch. The spec may request less memory; then the
micro-batch is smaller. The minimum is the memory for micro-batches of one sequence. A smaller request is
refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from rft_api.job import RFTJobSpec
from rft_api.parameters import Dtype
from rft_api.status import Effective
from rft_planner import host
from rft_planner.host import HostSize
from rft_planner.memory import BF16, Part
from rft_planner.shapes import Shape
from rft_planner.sizes import GIB, gib, mib, quantity

FORCE_ANNOTATION = "rft.dev/force-memory"
"""With ``"true"`` on an RFTJob, ``spec.resources.memory`` may be below the plan's minimum."""


def memory_check_disabled(annotations: Mapping[str, str] | None) -> bool:
    """Return whether an RFTJob's annotations disable the check that its memory is enough for the run."""
    return (annotations or {}).get(FORCE_ANNOTATION) == "true"


_GPU_HOST = 16 * GIB
"""Host memory for each GPU: processes, pinned buffers, page cache of checkpoints."""


class TooLittle(ValueError):
    """``spec.resources.memory`` is less than the run needs. The message says why and what to do."""


@dataclass(frozen=True)
class Container:
    """The container's requests. ``least`` is its minimum memory in bytes, if the model's size is known."""

    cpu: str
    memory: str
    least: float | None = None
    size: HostSize | None = None
    """The memory sum of a run on the CPU."""
    forced: bool = False
    notes: tuple[str, ...] = ()


def on_gpu(gpus: int, shape: Shape | None, asked: str | None) -> Container:
    """Return the container of a run with ``gpus`` GPUs.

    While a role loads the base, it reads the weights in bf16 into host memory. So the minimum is the memory
    of one copy of the weights and of the processes. A smaller request only gives a warning, because this
    minimum is not measured.
    """
    size = shape.parameters if shape is not None else 3e8
    memory = asked or gib(2 * size * 1.5 + gpus * _GPU_HOST)
    if shape is None:
        return Container(str(4 * gpus), memory)
    least = BF16 * shape.parameters + sum(host.INTERPRETERS.values())
    short = f"spec.resources.memory: {memory} is obeyed, but loading the base takes about {mib(least)}"
    notes = (short,) if quantity(memory) < least else ()
    return Container(str(4 * gpus), memory, least, notes=notes)


def on_cpu(
    spec: RFTJobSpec,
    derived: Effective,
    shape: Shape,
    asked: str | None,
    *,
    dtype: Dtype,
    force: bool = False,
) -> Container:
    """Return the container of a run on the CPU, with the largest micro-batch that fits into the memory.

    Raises:
        TooLittle: less than the minimum is requested, and ``force`` is not set.
    """
    found = list(host.sizes(shape, host.host_run(spec, derived, dtype)))
    comfortable, least = found[0], found[-1]
    # 1.5 CPUs fit on a node with two, where other pods need some.
    cpu = "1500m"
    if asked is None:
        return Container(
            cpu, mib(comfortable.memory), least.memory, comfortable, notes=(_said(comfortable, dtype),)
        )
    fitting = next((size for size in found if size.memory <= quantity(asked)), None)
    if fitting is None and not force:
        raise TooLittle(_refusal(spec, derived, least, asked))
    size = fitting or least
    notes = [_said(size, dtype)]
    if size != comfortable:
        notes.append(f"spec.resources.memory: {asked} is obeyed; {mib(comfortable.memory)} are comfortable")
    if fitting is None:
        notes.append(_forced(asked, least.memory))
    return Container(cpu, asked, least.memory, size, forced=fitting is None, notes=tuple(notes))


def _forced(asked: str, least: float) -> str:
    return (
        f"spec.resources.memory: {asked} is obeyed by the annotation {FORCE_ANNOTATION}, and the run is"
        f" likely to run out of memory: it needs {mib(least)}"
    )


def _said(size: HostSize, dtype: Dtype) -> str:
    return (
        f"{mib(size.memory)} hold a micro-batch of {size.micro_batch} tokens and a cache of"
        f" {size.cache_tokens}, with weights in {dtype} (training.cpuDtype)"
    )


def _refusal(spec: RFTJobSpec, derived: Effective, least: HostSize, asked: str) -> str:
    """Return the message of TooLittle: the minimum, its sum, and the parameters that lower it."""
    return (
        f"spec.resources.memory: {asked} is less than the {mib(least.memory)} that {spec.model.name} needs"
        f" with the smallest micro-batch, one sequence of {derived.max_context_length} tokens:"
        f" {', '.join(map(_part, least.parts))}. Leave it out or set at least {mib(least.memory)};"
        " or lower training.maxContextLength, training.loraRank or sampling.numRollouts; the annotation"
        f' {FORCE_ANNOTATION}: "true" tries it all the same'
    )


def _part(part: Part) -> str:
    return f"{part.name} {mib(part.bytes)}"
