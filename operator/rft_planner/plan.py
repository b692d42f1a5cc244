"""Makes the plan of a job: its GPUs, their division between training and sampling, its CPUs and memory."""

import difflib
from typing import Any, NamedTuple

from rft_api.conditions import Reason
from rft_api.effective import effective
from rft_api.job import RFTJobSpec
from rft_api.parameters import Dtype
from rft_api.resources import Accelerator, Resources
from rft_api.sizes import parameter_count
from rft_api.status import Device, Effective, MemoryPart, Plan
from rft_planner import accelerators, container, ephemeral
from rft_planner.accelerators import ACCELERATORS, NODE_GPUS, NVIDIA
from rft_planner.accelerators import Device as Gpu
from rft_planner.architectures import Untrainable, check_name
from rft_planner.balance import balanced
from rft_planner.catalogue import shape_of
from rft_planner.container import Container
from rft_planner.estimate import RowCounts, about, estimate, step_seconds
from rft_planner.fixes import fixes
from rft_planner.idle import IdleTime, StepCosts, idle_time
from rft_planner.memory import USABLE, MemoryDemand, Part, sampling, total, training
from rft_planner.overlap import adapters_in_use
from rft_planner.precision import SAFE, dtype_of
from rft_planner.shapes import Shape, estimated
from rft_planner.sizes import GIB, MIB, mib, quantity
from rft_planner.speed import Speed, speed_of
from rft_planner.split import Split, fitted, smallest, tensor_parallel

CPU_NAME = "cpu"


class Unplannable(ValueError):
    """Error: no plan can be made for a job. ``reason`` is the reason for the status condition ``Planned``."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class _Gpus(NamedTuple):
    """The number of GPUs of a run, with sentences for the user that explain this number.

    ``split`` is the division of the GPUs between training and sampling, or None if it is not known.
    """

    number: int
    notes: list[str]
    split: Split | None = None


def plan(
    spec: RFTJobSpec,
    uid: str,
    *,
    shape: Shape | None = None,
    rows: RowCounts | None = None,
    force_memory: bool = False,
    cpu_dtype: Dtype = SAFE,
) -> Plan:
    """Return the plan of a job: the resources of its pod, the use of its GPUs, and the estimate of the run.

    - ``uid`` is the job's UID. The seed is derived from it.
    - ``shape`` is the model's shape: its layers, widths and heads. If it is None, the shape is found by the
      name of the model.
    - ``rows`` has the numbers of rows of the dataset and the length of prompts. None: they are not known.
    - ``force_memory`` says whether a ``spec.resources.memory`` that is too small is accepted.
    - ``cpu_dtype`` is the dtype that is fast on the CPU of the machine that will train. It is float32 if the
      machine is not known.

    Raises:
        Unplannable: in one of these cases:

            - The model cannot be trained.
            - The model's size or the accelerator's memory is needed for the plan, and is not known.
            - The run fits on no number of GPUs.
            - The spec requests too little memory for a run on the CPU, or more CPUs than its CPU limit.
    """
    if shape is None:
        _check_trainable(spec.model.name)
    resources = spec.resources or Resources()
    shape = shape or _shape(spec)
    derived = effective(spec, uid, shape.context if shape is not None else None)
    costs = _costs(spec, derived, shape, rows)
    gpus = _asked_for(spec, shape, derived, costs) or _derived(spec, shape, derived, costs)
    device: Device = "cuda" if gpus.number else "cpu"
    dtype = dtype_of(spec.training, device, cpu_dtype)
    held = _container(spec, derived, shape, gpus.number, dtype, force=force_memory)
    expected = estimate(spec, derived, shape, _speed(spec, gpus.split), rows)
    even = _balance(spec, derived, shape, rows) if gpus.split is not None else None
    idle = _idle(spec, derived, gpus.split, costs)
    # In a Plan these fields may be absent, but not null.
    optional: dict[str, Any] = {}
    storage = ephemeral.on_node(spec, shape, gpus.number)
    if storage is not None:
        optional |= {"ephemeral_storage": storage.request, "ephemeral_storage_limit": storage.limit}
    if resources.cpu_limit is not None:
        optional["cpu_limit"] = resources.cpu_limit
    if gpus.number and resources.accelerator is not None and resources.accelerator.name is not None:
        optional["accelerator"] = resources.accelerator.name
    if gpus.split is not None:
        optional |= {
            "memory_parts": [_in_mebibytes(part) for part in gpus.split.parts],
            "micro_batch_tokens": gpus.split.micro_batch,
            "trainer_gpus": gpus.split.trainers,
            "trainer_base": "divided" if gpus.split.divided else "whole",
            "sampler_gpus": gpus.split.sampler_gpus,
            "sampler_servers": gpus.split.samplers,
            "sampler_memory_share": gpus.split.sampler_share,
            "sampler_cache_memory": f"{int(gpus.split.cache_bytes(_memory(_accelerator(spec))) // MIB)}Mi",
        }
    if idle is not None:
        optional["idle_share"] = idle.share
    if even is not None:
        optional["balanced_gpus"] = even.gpus
    if held.size is not None:
        optional |= {
            "memory_parts": [_in_mebibytes(part) for part in held.size.parts],
            "micro_batch_tokens": held.size.micro_batch,
            "sampler_cache_tokens": held.size.cache_tokens,
        }
    if held.least is not None:
        optional["least_memory"] = mib(held.least)
    return Plan(
        effective=derived,
        gpus=gpus.number,
        device=device,
        dtype=dtype,
        cpu=_cpu(resources, held.cpu),
        memory=held.memory,
        forced=held.forced,
        estimate=expected.estimate,
        notes=[
            *gpus.notes,
            *_base(spec, derived, shape, gpus.split),
            *held.notes,
            *expected.notes,
            *(found.note for found in (idle, even) if found is not None and found.note),
        ],
        **optional,
    )


def _cpu(resources: Resources, planned: str) -> str:
    """Return the CPU request of the trainer's container.

    This is the request in the spec, if there is one. Otherwise it is ``planned``, but at most the CPU limit
    in the spec.

    Raises:
        Unplannable: the CPU request in the spec is above the CPU limit in the spec.
    """
    limit = resources.cpu_limit
    if limit is None:
        return resources.cpu or planned
    if resources.cpu is None:
        return min(planned, limit, key=quantity)
    if quantity(resources.cpu) > quantity(limit):
        raise Unplannable(
            Reason.DOES_NOT_FIT,
            f"spec.resources.cpu: {resources.cpu} is above spec.resources.cpuLimit {limit}; write at most"
            f" {limit}, or raise the limit",
        )
    return resources.cpu


def _check_trainable(name: str) -> None:
    try:
        check_name(name)
    except Untrainable as error:
        raise Unplannable(Reason.UNTRAINABLE_MODEL, str(error)) from error


class _Even(NamedTuple):
    """The number of GPUs with which the times of sampling and training differ least, and a note about it."""

    gpus: int
    note: str


def _balance(
    spec: RFTJobSpec, derived: Effective, shape: Shape | None, rows: RowCounts | None
) -> _Even | None:
    """Return the number of GPUs for which the times of sampling and update in a step differ least.

    Return ``None`` if the shape of the model or the speed of the GPUs is not known, or if the run does not
    fit.
    """
    device, memory = _device(spec), _memory(_accelerator(spec))
    if shape is None or device is None:
        return None
    found = balanced(
        shape,
        _demand(spec, derived),
        memory,
        lambda split: step_seconds(spec, derived, shape, speed_of(split, device, memory), rows),
    )
    if found is None:
        return None
    split, step = found
    return _Even(
        split.gpus,
        f"training and sampling take nearly the same time with {split.gpus} GPUs: {split.trainers} for"
        f" training, about {about(step.update):g} s of a step, and {split.sampler_gpus} for sampling, about"
        f" {about(step.sampling):g} s",
    )


def _costs(
    spec: RFTJobSpec, derived: Effective, shape: Shape | None, rows: RowCounts | None
) -> StepCosts | None:
    """Return a function that estimates the time of a step, and how long GPUs are idle in it.

    Its argument is a division of the GPUs between training and sampling. Return ``None`` if the speed of the
    GPUs or the shape of the model is not known.
    """
    device = _device(spec)
    if shape is None or device is None:
        return None
    return StepCosts(spec, derived, shape, device, _memory(_accelerator(spec)), rows)


def _idle(
    spec: RFTJobSpec, derived: Effective, split: Split | None, costs: StepCosts | None
) -> IdleTime | None:
    """Return the share of a step in which GPUs are idle, with a note for the user about it.

    ``split`` is the division of the GPUs between training and sampling. Return None if it is not known, or if
    ``costs``, which estimates the share, is None.
    """
    if split is None or costs is None:
        return None
    return idle_time(split, costs, _demand(spec, derived), _most_gpus(spec))


def _asked_for(
    spec: RFTJobSpec, shape: Shape | None, derived: Effective, costs: StepCosts | None
) -> _Gpus | None:
    """Return the number of GPUs that the spec sets, with notes for the user, or None if it sets no number.

    The notes also say which number the planner would choose. The accelerator ``cpu`` sets the number to 0.
    """
    resources = spec.resources or Resources()
    if resources.gpus is None:
        accelerator = resources.accelerator
        on_cpu = accelerator is not None and accelerator.name == CPU_NAME
        return _Gpus(0, ["spec.resources.accelerator.name is cpu"]) if on_cpu else None
    asked = f"spec.resources.gpus is {resources.gpus}"
    if not resources.gpus:
        return _Gpus(0, [asked])
    notes = [asked, *_more_than_a_node_has(spec, resources.gpus)]
    try:
        without = _derived(spec, shape, derived, costs)
    except Unplannable as error:
        notes.append(f"without spec.resources.gpus: {error}")
        if error.reason != Reason.DOES_NOT_FIT:
            return _Gpus(resources.gpus, notes)
    else:
        if without.number == resources.gpus:
            return _Gpus(resources.gpus, [*notes, *without.notes], without.split)
        notes += (f"without spec.resources.gpus: {note}" for note in without.notes)
    if shape is None:
        return _Gpus(resources.gpus, notes)
    memory, work = _memory(_accelerator(spec)), _demand(spec, derived)
    split = fitted(resources.gpus, shape, work, memory, costs)
    if split is None:
        said = f"by this plan the run does not fit on {resources.gpus} GPU{'s' if resources.gpus > 1 else ''}"
        notes.append(said + _fitting(spec, shape, work, memory, resources.gpus))
    return _Gpus(resources.gpus, notes, split)


def _more_than_a_node_has(spec: RFTJobSpec, gpus: int) -> list[str]:
    most = _most_gpus(spec)
    if gpus <= most:
        return []
    kind = _accelerator(spec).name or "this kind"
    return [f"a usual node has at most {most} GPUs of {kind}: the pod waits for a node that has {gpus}"]


def _most_gpus(spec: RFTJobSpec) -> int:
    """Return the largest usual number of GPUs in one node, for the kind of GPU that the spec asks for."""
    device = _device(spec)
    return device.node if device is not None else NODE_GPUS


def _derived(spec: RFTJobSpec, shape: Shape | None, derived: Effective, costs: StepCosts | None) -> _Gpus:
    """Return the smallest number of GPUs of one node on which the run fits, with notes that explain it.

    Raises:
        Unplannable: the size of the model or the memory of the GPUs is not known, or the run does not fit.
    """
    if shape is None:
        raise Unplannable(
            Reason.UNKNOWN_MODEL,
            f"the size of {spec.model.name} is not known;"
            " set spec.model.parameters, e.g. 7B, or spec.resources.gpus",
        )
    memory, work = _memory(_accelerator(spec)), _demand(spec, derived)
    split = smallest(shape, work, memory, _most_gpus(spec), costs)
    if split is None:
        raise Unplannable(Reason.DOES_NOT_FIT, _too_large(spec, shape, work, memory))
    return _Gpus(split.gpus, _explained(shape, split, memory), split)


def _too_large(spec: RFTJobSpec, shape: Shape, work: MemoryDemand, memory: float) -> str:
    usable, most = USABLE * memory, _most_gpus(spec)
    trained = total(training(shape, work, work.context, most))
    sampled = total(sampling(shape, work, tensor_parallel(most, shape)))
    each = " on each" if most > 1 else ""
    why = f"training needs {_gib(trained)} and sampling needs {_gib(sampled)}{each}"
    fit = _fitting(spec, shape, work, memory, most) or (
        ". Use a larger accelerator or a smaller model, lower training.maxContextLength or training.loraRank"
    )
    return (
        f"{spec.model.name}, {_billions(shape)} parameters: on {most} GPU{'s' if most > 1 else ''}, the most"
        f" of a node, {why}; {_gib(usable)} of a GPU's {_gib(memory)} are usable{fit}, or set"
        " spec.resources.gpus to try it anyway"
    )


def _fitting(spec: RFTJobSpec, shape: Shape, work: MemoryDemand, memory: float, gpus: int) -> str:
    """Return the last sentence of a message: changes of the spec, each of which makes the run fit.

    Return "" if there are none. ``memory`` is the memory of one GPU in bytes.
    """
    device = _device(spec)
    found = fixes(
        shape, work, memory, gpus, spec.sampling.max_tokens, device.resource if device is not None else NVIDIA
    )
    return f". The run fits with {', or with '.join(found)}" if found else ""


def _explained(shape: Shape, split: Split, memory: float) -> list[str]:
    """Return sentences for the user about the GPU memory that training and sampling need.

    ``memory`` is the memory of one GPU in bytes.
    """

    def of(role: str) -> float:
        return total(part for part in split.parts if part.name.startswith(role))

    trained, sampled, usable = of("training"), of("sampling"), USABLE * memory
    sizes = f"{_gib(usable)} of a GPU's {_gib(memory)} are usable"
    if split.gpus == 1:
        placed = f"1 GPU holds {_gib(trained)} for training and {_gib(sampled)} for sampling: {sizes}"
    else:
        placed = (
            f"{split.gpus} GPUs: {split.trainers} {_hold(split.trainers)} {_gib(trained)} for training,"
            f" {split.sampler_gpus} {_hold(split.sampler_gpus)} {_gib(sampled)} for"
            f" sampling{_samplers(split)}: {sizes}"
        )
    return [
        placed,
        f"the memory is calculated for {_billions(shape)} parameters and micro-batches of"
        f" {split.micro_batch} tokens; it has not been measured on a GPU yet",
    ]


def _base(spec: RFTJobSpec, derived: Effective, shape: Shape | None, split: Split | None) -> list[str]:
    """Return a sentence that says how the GPUs that train have the base model, as a list.

    Either each GPU has the whole base model, or the GPUs divide its layers. Return [] if only one GPU trains,
    or if ``shape`` or ``split`` is None.
    """
    if shape is None or split is None or split.trainers == 1:
        return []
    if not split.divided:
        return [f"each of the {split.trainers} GPUs that train has the whole base model"]
    whole = training(shape, _demand(spec, derived), split.micro_batch, split.trainers, divided=False)
    return [
        f"the {split.trainers} GPUs that train divide the layers of the base model: with the whole base each"
        f" would need {_gib(total(whole))} for training"
    ]


def _samplers(split: Split) -> str:
    """Return the last words of a sentence about a division of GPUs: how many GPUs each sampler has.

    The words also say if these GPUs train too. Return "" if there is one sampler with GPUs of its own.
    """
    said = f", {split.samplers} samplers with {split.tensor_parallel} each" if split.samplers > 1 else ""
    return said + (", in turns on the same GPUs" if split.shared else "")


def _hold(gpus: int) -> str:
    return "holds" if gpus == 1 else "hold each"


def _billions(shape: Shape) -> str:
    return f"{shape.parameters / 1e9:.3g}B"


def _gib(amount: float) -> str:
    return f"{amount / GIB:.1f} GiB"


def _in_mebibytes(part: Part) -> MemoryPart:
    return MemoryPart(name=part.name, mebibytes=round(part.bytes / 2**20, 1))


def _shape(spec: RFTJobSpec) -> Shape | None:
    """Return the shape of the model (layers, widths, heads), or None if it cannot even be estimated.

    If the spec sets the model's number of parameters, the shape is estimated from it. Otherwise the shape
    comes from the catalogue. If the catalogue does not have the model, the shape is estimated from the size
    in the model's name, such as 7B.
    """
    known = shape_of(spec.model.name)
    if spec.model.parameters is None and known is not None:
        return known
    count = parameter_count(spec.model.parameters or spec.model.name)
    return estimated(count) if count is not None else None


def _demand(spec: RFTJobSpec, derived: Effective) -> MemoryDemand:
    training = spec.training
    attention_only = training.lora_targets == "attention"
    return MemoryDemand(
        training.lora_rank,
        derived.max_context_length,
        spec.sampling.num_rollouts,
        attention_only,
        training.batch_size_tokens,
        adapters_in_use(spec, apart=True),
    )


def _accelerator(spec: RFTJobSpec) -> Accelerator:
    resources = spec.resources
    return (resources.accelerator if resources is not None else None) or Accelerator()


def _device(spec: RFTJobSpec) -> Gpu | None:
    """Return the properties of the GPU that the spec names, from the catalogue of accelerators.

    If the spec gives neither the name nor the memory of a GPU, return those of the default accelerator.
    Return ``None`` if the catalogue does not have the GPU.
    """
    accelerator = _accelerator(spec)
    default = accelerators.DEFAULT if accelerator.memory is None else ""
    return ACCELERATORS.get(accelerator.name or default)


def _speed(spec: RFTJobSpec, split: Split | None) -> Speed | None:
    """Return the speed of the run's GPUs, from which times are estimated, or None if it is not known.

    ``split`` is the division of the GPUs between training and sampling. None: it is not known.
    """
    device = _device(spec)
    if split is None or device is None:
        return None
    return speed_of(split, device, _memory(_accelerator(spec)))


def _memory(accelerator: Accelerator) -> float:
    """Return the memory of one GPU in bytes. Without name and memory, the default accelerator is meant.

    Raises:
        Unplannable: the catalogue does not have the accelerator, and the spec gives no memory.
    """
    if accelerator.memory is not None:
        return quantity(accelerator.memory)
    name = accelerator.name or accelerators.DEFAULT
    if name not in ACCELERATORS:
        close = difflib.get_close_matches(name.lower(), ACCELERATORS, 1, cutoff=0.5)
        meant = f"write {close[0]}, or " if close else ""
        raise Unplannable(
            Reason.UNKNOWN_ACCELERATOR,
            f"spec.resources.accelerator.name: {name!r} is not in the catalogue; {meant}for any other kind"
            " set spec.resources.accelerator.memory, e.g. 48Gi",
        )
    return ACCELERATORS[name].memory


def _container(
    spec: RFTJobSpec, derived: Effective, shape: Shape | None, gpus: int, dtype: Dtype, *, force: bool
) -> Container:
    """Return the CPU and memory requests of the trainer's container.

    Raises:
        Unplannable: for a run on the CPU, the memory in the spec is too small, or the spec has none and the
            size of the model is not known.
    """
    asked = spec.resources.memory if spec.resources is not None else None
    try:
        if gpus:
            return container.on_gpu(gpus, shape, asked)
        if shape is not None:
            return container.on_cpu(spec, derived, shape, asked, dtype=dtype, force=force)
    except container.TooLittle as error:
        raise Unplannable(Reason.DOES_NOT_FIT, str(error)) from error
    if asked is not None:
        return Container("1500m", asked)
    raise Unplannable(
        Reason.UNKNOWN_MODEL,
        f"the size of {spec.model.name} is not known;"
        " set spec.model.parameters, e.g. 135M, or spec.resources.memory",
    )
