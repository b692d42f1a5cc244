"""Explains why Kubernetes finds no node for a job's pod: what the pod needs, and what the largest node has.

The explanation also says which changes of the job would help.
"""

from collections.abc import Sequence

from rft_api.job import RFTJobSpec
from rft_api.resources import Resources
from rft_api.status import Plan
from rft_planner.nodes import CPU, MEMORY, Node, holds, usable
from rft_planner.placement import needs
from rft_planner.remedies import (
    LOWERED,
    Amounts,
    NodeSpace,
    Remedy,
    larger_accelerator,
    remedies,
    smaller_model,
)
from rft_planner.sizes import GIB

STORAGE = "ephemeral-storage"
_SHORT = "Insufficient"
"""Word in the scheduler's message if nodes do not have enough free CPUs, memory or GPUs."""


def explain_unschedulable(
    spec: RFTJobSpec, made: Plan, nodes: Sequence[Node], requests: Amounts, said: str
) -> str:
    """Return a message that says why no node can run the pod of a job, and what to do.

    - ``made`` is the plan of ``spec``.
    - ``nodes`` are the nodes of the cluster. If there are none, the message does not compare the pod with a
      node.
    - ``requests`` are the pod's resource requests. If there are none, those of the plan are used.
    - ``said`` is the scheduler's message. It is part of the returned message.
    """
    wanted = dict(requests) or needs(made)
    if STORAGE not in said:
        # Ephemeral storage is not why the pod gets no node, and nodes need not say how much they have.
        wanted.pop(STORAGE, None)
    asks = f"The pod needs {_amounts(wanted)}"
    if nodes:
        room = _room(spec, made, nodes, wanted)
        asks = f"{asks}; {_answer(spec, made, room, wanted, said)}"
    return f"{asks}. The scheduler: {said}"


def _answer(spec: RFTJobSpec, made: Plan, room: NodeSpace, wanted: Amounts, said: str) -> str:
    largest = room.largest
    if largest is None:
        return (
            "there is no ready node that has the labels of the pod's node selector and only taints that the"
            " pod tolerates"
        )
    if any(holds(node, wanted) for node in room.nodes):
        busy = ", so the pod waits until other pods on this node end" if _SHORT in said else ""
        return f"a node is large enough{busy}"
    has = {name: largest.allocatable.get(name, 0.0) for name in wanted}
    compared = f"the largest node that the pod may use, {largest.name}, has {_amounts(has)}"
    return f"{compared}. {_advice(spec, made, room, wanted)}"


def _advice(spec: RFTJobSpec, made: Plan, room: NodeSpace, wanted: Amounts) -> str:
    largest = room.largest
    if made.gpus and largest is not None and not largest.allocatable.get(room.resource or ""):
        return (
            f"No node that the pod may use has {room.resource};"
            " with spec.resources.accelerator.name: cpu the pod needs no GPU"
        )
    found = remedies(spec, made, room)
    if found:
        ways = ", or with ".join(" and ".join(map(str, remedy)) for remedy in found)
        return f"The pod fits with {ways} ({_how(found)})"
    return _larger(spec, made, room, wanted)


def _how(found: Sequence[Remedy]) -> str:
    """Return a text that says which changes in ``found`` this job allows, and which need a new job."""
    paths = [change.path.startswith("spec.resources.") for remedy in found for change in remedy]
    if all(paths):
        return "spec.resources can change while the job is suspended"
    another = "only in a new job: this cannot change after the start"
    return (
        f"spec.resources can change while the job is suspended, the rest {another}" if any(paths) else another
    )


def _larger(spec: RFTJobSpec, made: Plan, room: NodeSpace, wanted: Amounts) -> str:
    """Return a sentence that says with which accelerator, model size or node the pod would fit.

    It is for a pod that does not fit even with lower parameters. ``made`` is the plan of ``spec``, ``room``
    has the nodes that the pod may use, and ``wanted`` are the pod's requests.
    """
    names = ", ".join(path.removeprefix("spec.") for path in LOWERED)
    accelerator, size = larger_accelerator(spec, made, room), smaller_model(spec, made, room)
    ways = [f"GPUs of the kind {accelerator}"] if accelerator is not None else []
    ways += [f"a model of up to {size:g}B parameters"] if size is not None else []
    would = " or ".join(ways) or _short_of(room, wanted)
    found = f"The pod does not fit even with lower values of one or two of {names}. It would fit with {would}"
    if wanted.get(STORAGE, 0) <= (room.largest.allocatable.get(STORAGE, 0) if room.largest else 0):
        return found
    return (
        f"{found}. spec.resources.ephemeralStorage can be lower if spec.model.cache has a claim for the model"
    )


def _short_of(room: NodeSpace, wanted: Amounts) -> str:
    has = room.largest.allocatable if room.largest is not None else {}
    short = {name: amount for name, amount in wanted.items() if amount > has.get(name, 0)}
    return f"a node with {_amounts(short)}"


def _room(spec: RFTJobSpec, made: Plan, nodes: Sequence[Node], wanted: Amounts) -> NodeSpace:
    own = needs(made)
    resource = next((name for name in own if name not in (CPU, MEMORY)), None)
    resources = spec.resources or Resources()
    kind = (made.node_selector or {}) if not made.node_terms else {}
    selector = {**kind, **(resources.node_selector or {})}
    aside = {name: max(0.0, amount - own.get(name, 0.0)) for name, amount in wanted.items()}
    return NodeSpace(
        usable(nodes, selector, resources.tolerations or [], resource, made.node_terms or []), resource, aside
    )


def _amounts(amounts: Amounts) -> str:
    """Return resource amounts as text: ``4 nvidia.com/gpu, 16 CPU, 90Gi``."""
    order = sorted(amounts, key=lambda name: (name == MEMORY, name == CPU, name))
    return ", ".join(_amount(name, amounts[name]) for name in order)


def _amount(name: str, amount: float) -> str:
    if name in (MEMORY, STORAGE):
        size = f"{amount / GIB:.4g}Gi" if amount >= GIB else f"{amount / 2**20:.4g}Mi"
        return size if name == MEMORY else f"{size} of {STORAGE}"
    return f"{amount:g} {'CPU' if name == CPU else name}"
