"""Finds changes of a spec that make the job's pod fit on a node of the cluster.

A new plan is made with each change, to check that the pod then fits.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, get_args

from annotated_types import Ge

from rft_api.job import RFTJobSpec
from rft_api.parameters import Sampling, Training
from rft_api.resources import Resources
from rft_api.status import Plan
from rft_planner.accelerators import ACCELERATORS, AMD, NVIDIA
from rft_planner.nodes import CPU, MEMORY, Kind, Node, holds
from rft_planner.placement import for_kind, needs, recorded
from rft_planner.plan import Unplannable, plan
from rft_planner.sizes import quantity

Amounts = Mapping[str, float]
"""Amounts of resources, such as CPUs, bytes of memory and GPUs, by the name of the resource."""
Value = int | str

CONTEXT = "spec.training.maxContextLength"
RANK = "spec.training.loraRank"
ROLLOUTS = "spec.sampling.numRollouts"
GPUS = "spec.resources.gpus"
RAM = "spec.resources.memory"
CPUS = "spec.resources.cpu"
LOWERED = (CONTEXT, RANK, ROLLOUTS)
"""Paths of the parameters that are lowered to make a pod fit, first each alone, then in pairs."""

_BILLIONS = (70, 32, 24, 14, 8, 7, 4, 3, 1.5, 1, 0.5)
_FIELDS = {CONTEXT: "max_context_length", RANK: "lora_rank", ROLLOUTS: "num_rollouts"}


class FieldValue(NamedTuple):
    """A proposed change: the path of a field in the spec, and its new value."""

    path: str
    value: Value

    def __str__(self) -> str:
        """Return the change as a text such as ``spec.training.loraRank: 8``."""
        return f"{self.path}: {self.value}"


Remedy = tuple[FieldValue, ...]
"""Changes of a spec that make the pod fit if all of them are made."""


@dataclass(frozen=True)
class NodeSpace:
    """The nodes that a pod may use, with methods that say what fits on them.

    ``aside``: the resource requests of the pod's other containers, which are not the trainer's container.
    """

    nodes: Sequence[Node]
    resource: str | None = None
    """Name of the extended resource of the pod's GPUs. None: the pod has no GPUs."""
    aside: Amounts = field(default_factory=dict)

    def fits(self, made: Plan) -> bool:
        """Return whether the pod of the plan ``made`` fits on a node that runs no other pods."""
        asked = needs(made.model_copy(update={"gpu_resource": self.resource}) if made.gpus else made)
        return any(holds(node, added(asked, self.aside)) for node in self.nodes)

    def most(self, resource: str) -> float:
        """Return the largest amount of a resource that the trainer's container can get on one node.

        It is the node's allocatable amount, less the requests of the pod's other containers.
        """
        has = (node.allocatable.get(resource, 0.0) for node in self.nodes)
        return max(has, default=0.0) - self.aside.get(resource, 0.0)

    @property
    def largest(self) -> Node | None:
        """The largest node: the one with the most GPUs, then the most memory, then the most CPUs.

        None: there are no nodes.
        """

        def size(node: Node) -> tuple[float, float, float, str]:
            has = node.allocatable
            return has.get(self.resource or "", 0), has.get(MEMORY, 0), has.get(CPU, 0), node.name

        return max(self.nodes, key=size, default=None)


def remedies(spec: RFTJobSpec, made: Plan, room: NodeSpace) -> list[Remedy]:
    """Return the smallest changes of a spec with which the pod fits on a node.

    Each item of the list is enough alone. The list is empty if no changes are enough. ``made`` is the plan of
    ``spec``, and ``room`` has the nodes that the pod may use.

    First each parameter is lowered alone, within its documented range. A new context length is a power of
    two, or three times a power of two. If no single parameter is enough, a pair of parameters is lowered: the
    pair with the smallest change.

    If the spec asks for more GPUs or memory than any node has, the planner's values first replace these
    values. If the pod needs more CPUs than any node has, its CPU request is first replaced by the largest
    number of CPUs that a node has.
    """
    ways = [way for way in _ways(spec, made, room) if _possible(way)]
    for way in ways:
        if way.released and way.fits(()):
            return [way.remedy(())]
    for way in ways:
        if found := [way.remedy((change,)) for path in LOWERED if (change := _most(way, path)) is not None]:
            return found
    return [way.remedy(pair) for way in ways[:1] if (pair := _pair(way)) is not None]


@dataclass(frozen=True)
class _Way:
    """A version of a spec, with methods that try lower values of its parameters.

    In some versions, values of ``spec.resources`` that are more than any node has are replaced. ``made`` is
    the plan of the original spec, and ``room`` has the nodes that the pod may use.
    """

    spec: RFTJobSpec
    made: Plan
    room: NodeSpace
    released: tuple[str, ...] = ()
    """Paths of the fields of ``spec.resources`` whose values were replaced."""

    def plan(self, changes: Sequence[FieldValue]) -> Plan | None:
        """Return the plan of the spec to which ``changes`` are made, or None if no plan can be made."""
        changed = self.spec
        for change in changes:
            changed = _changed(changed, change)
        try:
            return plan(changed, "")
        except Unplannable:
            return None

    def fits(self, changes: Sequence[FieldValue]) -> bool:
        """Return whether with ``changes`` the pod fits on a node, and the run fits on the GPUs of the pod."""
        made = self.plan(changes)
        if made is None or not self.room.fits(made):
            return False
        # If the run does not fit on the user's own number of GPUs, another message already says so.
        return made.memory_parts is not None or not made.gpus or self.made.memory_parts is None

    def remedy(self, changes: Sequence[FieldValue]) -> Remedy:
        """Return all changes that a user must make: ``changes``, and new values for fields in ``released``.

        The new values are those of a plan with ``changes``.
        """
        made = self.plan(changes)
        values: dict[str, Value] = {}
        if made is not None:
            values = {GPUS: made.gpus, RAM: made.memory or "", CPUS: made.cpu or ""}
        return (*changes, *(FieldValue(path, values[path]) for path in self.released if path in values))


def _target(spec: RFTJobSpec, made: Plan) -> RFTJobSpec:
    """Return a copy of the spec that names the accelerator which the plan ``made`` chose by node labels.

    If the spec already has an accelerator, or if the plan chose none, return the spec unchanged.
    """
    kind = recorded(made)
    chosen = spec.resources is None or spec.resources.accelerator is None
    return for_kind(spec, kind) if kind is not None and chosen else spec


def _ways(spec: RFTJobSpec, made: Plan, room: NodeSpace) -> Iterator[_Way]:
    """Yield the spec, then versions of it in which more and more values of ``spec.resources`` are replaced.

    First the number of GPUs and then the memory are replaced by the planner's values. At last the CPU request
    is replaced by the largest number of CPUs that a node has. A value is replaced only if no node has as
    much.
    """
    way = _Way(_target(spec, made), made, room)
    resources = spec.resources or Resources()
    yield way
    if (resources.gpus or 0) > room.most(room.resource or ""):
        way = _released(way, GPUS, {"gpus": None})
        yield way
    if resources.memory is not None and quantity(resources.memory) > room.most(MEMORY):
        way = _released(way, RAM, {"memory": None})
        yield way
    cpus = room.most(CPU)
    if quantity(made.cpu or "0") > cpus > 0:
        yield _released(way, CPUS, {"cpu": _cpus(cpus)})


def _released(way: _Way, path: str, update: dict[str, str | None]) -> _Way:
    resources = (way.spec.resources or Resources()).model_copy(update=update)
    freed = way.spec.model_copy(update={"resources": resources})
    return _Way(freed, way.made, way.room, (*way.released, path))


def _possible(way: _Way) -> bool:
    """Return whether the pod fits on a node if all parameters in ``LOWERED`` have their lowest values."""
    least = [FieldValue(path, values[-1]) for path in LOWERED if (values := _values(way, path))]
    return way.fits(least)


def _values(way: _Way, path: str) -> list[int]:
    """Return the allowed values of the parameter ``path`` below its present value, the highest first."""
    spec, made = way.spec, way.made
    if path == RANK:
        ranks = get_args(Training.model_fields["lora_rank"].annotation)
        return sorted((rank for rank in ranks if rank < spec.training.lora_rank), reverse=True)
    if path == ROLLOUTS:
        least = _least(Sampling.model_fields["num_rollouts"].metadata)
        return list(range(spec.sampling.num_rollouts - 1, least - 1, -1))
    now = made.effective.max_context_length if made.effective is not None else 0
    least = max(_least(Training.model_fields["max_context_length"].metadata), spec.sampling.max_tokens + 1)
    halves = {size for power in range(5, 30) for size in (2**power, 3 * 2 ** (power - 1))}
    return sorted((size for size in halves if least <= size < now), reverse=True)


def _least(metadata: Sequence[object]) -> int:
    """Return the minimum of a pydantic field, from its metadata. Return 1 if the field has no minimum."""
    return next((int(str(found.ge)) for found in metadata if isinstance(found, Ge)), 1)


def _most(way: _Way, path: str, others: Sequence[FieldValue] = ()) -> FieldValue | None:
    """Return the smallest change that lowers the parameter ``path`` and makes the pod fit on a node.

    ``others`` are further changes that are made together with it. Return None if no lower value of the
    parameter makes the pod fit.
    """
    values = _values(way, path)

    def fits(index: int) -> bool:
        return way.fits((*others, FieldValue(path, values[index])))

    if not values or not fits(len(values) - 1):
        return None
    return FieldValue(path, values[_first(fits, len(values) - 1)])


def _first(holds_at: Callable[[int], bool], last: int) -> int:
    """Return the first index from 0 to ``last`` at which ``holds_at`` is true, by binary search.

    If ``holds_at`` is true at an index, it must be true at all later indices. It must be true at ``last``.
    """
    low, high = 0, last
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds_at(middle) else (middle + 1, high)
    return low


def _pair(way: _Way) -> tuple[FieldValue, ...] | None:
    """Return the smallest changes of two parameters that together make the pod fit on a node.

    Return None if no two changes are enough.
    """
    pairs = [
        (FieldValue(one, value), other)
        for one, path in ((RANK, CONTEXT), (ROLLOUTS, CONTEXT), (RANK, ROLLOUTS))
        for value in _values(way, one)
        if (other := _most(way, path, (FieldValue(one, value),))) is not None
    ]
    return min(pairs, key=lambda pair: _lowering(way, pair), default=None)


def _lowering(way: _Way, pair: Sequence[FieldValue]) -> float:
    now = {
        CONTEXT: way.made.effective.max_context_length if way.made.effective is not None else 1,
        RANK: way.spec.training.lora_rank,
        ROLLOUTS: way.spec.sampling.num_rollouts,
    }
    return math.prod(now[change.path] / int(change.value) for change in pair)


def _changed(spec: RFTJobSpec, change: FieldValue) -> RFTJobSpec:
    section = "sampling" if change.path == ROLLOUTS else "training"
    part = getattr(spec, section).model_copy(update={_FIELDS[change.path]: change.value})
    return spec.model_copy(update={section: part})


def larger_accelerator(spec: RFTJobSpec, made: Plan, room: NodeSpace) -> str | None:
    """Return the name of the accelerator with the least memory with which the pod would fit on a node.

    Only whole GPUs of the same vendor are tried. Return None if the pod fits with none of them.
    ``made`` is the plan of ``spec``, and ``room`` has the nodes that the pod may use.
    """
    *_, way = _ways(spec, made, room)
    vendor = AMD if room.resource == AMD else NVIDIA
    for _, name in sorted((d.memory, name) for name, d in ACCELERATORS.items() if d.resource == vendor):
        kind = Kind(vendor, ACCELERATORS[name].memory, name)
        if room.resource is not None and replace(way, spec=for_kind(way.spec, kind)).fits(()):
            return name
    return None


def smaller_model(spec: RFTJobSpec, made: Plan, room: NodeSpace) -> float | None:
    """Return the largest size of a model with which the pod fits on a node, in billions of parameters.

    Some common sizes from 70 down to 0.5 are tried. Return None if the pod fits with none of them. ``made``
    is the plan of ``spec``, and ``room`` has the nodes that the pod may use.
    """
    *_, way = _ways(spec, made, room)
    for billions in _BILLIONS:
        model = way.spec.model.model_copy(update={"parameters": f"{billions}B"})
        if replace(way, spec=way.spec.model_copy(update={"model": model})).fits(()):
            return billions
    return None


def added(one: Amounts, other: Amounts) -> dict[str, float]:
    """Return the sum of two sets of resource amounts, for each resource in either set."""
    return {name: one.get(name, 0.0) + other.get(name, 0.0) for name in (*one, *(set(other) - set(one)))}


def _cpus(amount: float) -> str:
    return str(math.floor(amount)) if amount >= 1 else f"{math.floor(amount * 1000)}m"
