"""Calculates the CPU and memory requests of the trainer's container.

For a run on the CPU, the memory is by default enough for the largest useful micro-batch. If the job's spec
requests less memory, the micro-batch is smaller. If the requested memory is too small even for micro-batches
of one sequence, an error is raised. For a run on GPUs, a request that is too small only gives a warning.
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
"""Annotation of an RFTJob. With ``"true"``, ``spec.resources.memory`` may be less than the plan's minimum."""


def memory_check_disabled(annotations: Mapping[str, str] | None) -> bool:
    """Return whether an RFTJob's annotations turn off the check that ``spec.resources.memory`` is enough."""
    return (annotations or {}).get(FORCE_ANNOTATION) == "true"


_GPU_HOST = 16 * GIB
"""Bytes of main memory for each GPU, for processes, pinned buffers and the page cache of checkpoints."""


class TooLittle(ValueError):
    """Error: ``spec.resources.memory`` is less than a run on the CPU needs. The message says what to do."""


@dataclass(frozen=True)
class Container:
    """The CPU and memory requests of the trainer's container, as Kubernetes quantities.

    ``least`` is the minimum memory that the run needs, in bytes, or None if it is not known. ``notes`` are
    sentences for the user about the requests.
    """

    cpu: str
    memory: str
    least: float | None = None
    size: HostSize | None = None
    """Micro-batch, sampler cache and parts of the memory for a run on the CPU. None for a run on GPUs."""
    forced: bool = False
    """Whether the memory request is below the minimum ``least``, because ``FORCE_ANNOTATION`` allows this."""
    notes: tuple[str, ...] = ()


def on_gpu(gpus: int, shape: Shape | None, asked: str | None) -> Container:
    """Return the CPU and memory requests of the trainer's container for a run with ``gpus`` GPUs.

    ``asked`` is the memory that the spec requests, or None to calculate it from the model and the number of
    GPUs. ``shape`` is None if the size of the model is not known. Then the minimum memory is also not known.

    The minimum is the memory of the processes and of one copy of the weights in bf16, because a process loads
    the weights into main memory first. If ``asked`` is less, the result only has a note, because the minimum
    was not measured.
    """
    size = shape.parameters if shape is not None else 3e8
    memory = asked or gib(2 * size * 1.5 + gpus * _GPU_HOST)
    if shape is None:
        return Container(str(4 * gpus), memory)
    least = BF16 * shape.parameters + sum(host.INTERPRETERS.values())
    short = f"spec.resources.memory: {memory} is used, but loading the base model takes about {mib(least)}"
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
    """Return the CPU and memory requests of the trainer's container for a run on the CPU.

    ``asked`` is the memory that the spec requests. If it is None, the memory is enough for the largest useful
    micro-batch. Otherwise the micro-batch is the largest one that fits into ``asked``. ``force`` says whether
    less than the minimum memory is accepted.

    Raises:
        TooLittle: ``asked`` is less than the minimum memory, and ``force`` is false.
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
        notes.append(f"spec.resources.memory: {asked} is used; {mib(comfortable.memory)} are recommended")
    if fitting is None:
        notes.append(_forced(asked, least.memory))
    return Container(cpu, asked, least.memory, size, forced=fitting is None, notes=tuple(notes))


def _forced(asked: str, least: float) -> str:
    return (
        f"spec.resources.memory: {asked} is used because of the annotation {FORCE_ANNOTATION}; the run"
        f" needs {mib(least)}, so it is likely to run out of memory"
    )


def _said(size: HostSize, dtype: Dtype) -> str:
    return (
        f"{mib(size.memory)} of memory for micro-batches of {size.micro_batch} tokens and a cache of"
        f" {size.cache_tokens} tokens, with weights in {dtype} (training.cpuDtype)"
    )


def _refusal(spec: RFTJobSpec, derived: Effective, least: HostSize, asked: str) -> str:
    """Return the error message for a memory request ``asked`` that is too small.

    It has the minimum memory, the parts of this memory, and the parameters that reduce it.
    """
    return (
        f"spec.resources.memory: {asked} is less than the {mib(least.memory)} that {spec.model.name} needs"
        f" with the smallest micro-batch, one sequence of {derived.max_context_length} tokens:"
        f" {', '.join(map(_part, least.parts))}. Remove it or set at least {mib(least.memory)};"
        " or lower training.maxContextLength, training.loraRank or sampling.numRollouts; the annotation"
        f' {FORCE_ANNOTATION}: "true" starts the run in any case'
    )


def _part(part: Part) -> str:
    return f"{part.name} {mib(part.bytes)}"
