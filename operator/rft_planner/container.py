"""CPU and memory of the trainer's container.

By default there is enough for the largest micro-batch. The spec may ask for less, down to what one sequence
at a time needs; less than that is refused.
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
"""``"true"`` on an RFTJob: ``spec.resources.memory`` may be less than the plan's least."""


def memory_check_disabled(annotations: Mapping[str, str] | None) -> bool:
    """Return whether an RFTJob's annotations turn off the check that its memory holds the run."""
    return (annotations or {}).get(FORCE_ANNOTATION) == "true"


_GPU_HOST = 16 * GIB
"""For each GPU: processes, pinned buffers, page cache of checkpoints."""


class TooLittle(ValueError):
    """``spec.resources.memory`` is less than the run needs; the message has the sum and the fix."""


@dataclass(frozen=True)
class Container:
    """What the container asks for. ``least`` in bytes, where the model's size is known."""

    cpu: str
    memory: str
    least: float | None = None
    size: HostSize | None = None
    """The sum for a run on the CPU."""
    forced: bool = False
    notes: tuple[str, ...] = ()


def on_gpu(gpus: int, shape: Shape | None, asked: str | None) -> Container:
    """Return the container beside ``gpus`` GPUs.

    While it loads, each role reads the base in bf16 into host memory: the least is one copy and the
    processes. It was not measured, so less is obeyed.
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
    """Return the container of a run on the CPU: as asked for, with the largest micro-batch that fits.

    Raises:
        TooLittle: if less than the least is asked for and not forced.
    """
    found = list(host.sizes(shape, host.host_run(spec, derived, dtype)))
    comfortable, least = found[0], found[-1]
    # 1.5 CPUs leave room on a node with two.
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
    """Say what is needed at least, the sum, and what lowers it."""
    return (
        f"spec.resources.memory: {asked} is less than the {mib(least.memory)} that {spec.model.name} needs"
        f" with the smallest micro-batch, one sequence of {derived.max_context_length} tokens:"
        f" {', '.join(map(_part, least.parts))}. Leave it out or set at least {mib(least.memory)};"
        " or lower training.maxContextLength, training.loraRank or sampling.numRollouts; the annotation"
        f' {FORCE_ANNOTATION}: "true" tries it all the same'
    )


def _part(part: Part) -> str:
    return f"{part.name} {mib(part.bytes)}"
