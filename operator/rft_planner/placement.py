"""Plans a job on a cluster: chooses a kind of GPU that the nodes have, and the labels of nodes for the pod.

If the spec names no accelerator, a plan is made for each kind of GPU that the job may use. The rules below
choose one kind. A later rule decides only if the earlier ones leave several kinds.

1. The pod fits on a node of this kind.
2. The run fits on the number of GPUs that the user set.
3. The job's earlier plan chose this kind.
4. The plan needs the fewest GPUs.
5. The most nodes have this kind.
6. The name is the first in the alphabet.

If no node has GPUs that the job may use, the kind of the earlier plan is kept.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from rft_api.conditions import Reason
from rft_api.defaults import CPU as ON_CPU
from rft_api.defaults import NO_DEFAULTS, Inheriting, JobDefaults, inherit
from rft_api.job import RFTJobSpec
from rft_api.resources import Accelerator, Resources, Toleration
from rft_api.status import NodeTerm, Plan
from rft_planner import accelerators, kind_labels
from rft_planner.accelerators import ACCELERATORS, resource_of
from rft_planner.inheriting import asked_for, planned
from rft_planner.inventory import Inventory, inventory
from rft_planner.kind_labels import INSTANCE, product_key
from rft_planner.nodes import CPU, MEMORY, Kind, Node, holds, usable
from rft_planner.plan import Unplannable
from rft_planner.sizes import quantity

_ELSEWHERE = (
    "no node that the job may use has a label for this accelerator: the pod may get another kind of GPU"
)
_LATER = "no node that the job may use has this accelerator now: the pod waits until there is one"


class _Offer(NamedTuple):
    """A kind of GPU, the nodes of this kind that the job may use, and the job's plan for this kind."""

    kind: Kind
    nodes: list[Node]
    plan: Plan


def placed(
    spec: RFTJobSpec,
    uid: str,
    nodes: Sequence[Node] = (),
    before: Plan | None = None,
    *,
    force_memory: bool = False,
    defaults: JobDefaults = NO_DEFAULTS,
) -> Plan:
    """Return the plan of a job on a cluster: its kind of GPU, its resources, and the node labels for its pod.

    - ``uid`` is the job's UID.
    - ``nodes`` are the nodes of the cluster. Without nodes the kinds of GPU are not known.
    - ``before`` is an earlier plan of the same spec. The new plan usually has the same kind of GPU, also if
      nodes were added or removed.
    - ``force_memory`` says whether a ``spec.resources.memory`` that is too small is accepted.
    - ``defaults`` are the platform's defaults, which the job inherits. The defaults of a kind of GPU can
      have a node selector and tolerations, which decide which nodes of this kind the job may use.

    Raises:
        Unplannable: no plan can be made. If the job fits on no kind of GPU in the cluster, the error is that
            of the kind with the most memory.
    """
    named, accelerator = asked_for(spec), (spec.resources or Resources()).accelerator
    made_for = partial(planned, uid=uid, force_memory=force_memory)
    inheriting = partial(inherit, spec, defaults)
    if named == ON_CPU:
        return made_for(inheriting(ON_CPU))
    known = inventory(nodes)
    if accelerator is not None:
        job = inheriting(named)
        offered = known.offered(*_allowing(job.spec))
        kind = _named(named, offered)
        made = made_for(job)
        if kind is not None:
            return _landing_on(kind, made, job.spec, known, before, named=True)
        return _not_there(made, job.spec, known, offered) if named is not None else made
    offered = _offered(known, inheriting, defaults)
    earlier = recorded(before)
    if not offered and earlier is not None:
        offered = {earlier: []}
    if not offered:
        made = made_for(inheriting(named)).model_copy(update={"accelerator": accelerators.DEFAULT})
        # The note names no nodes: a status must not change whenever a node is added or removed.
        return _noted(
            made,
            f"planned for {accelerators.DEFAULT}: no node that the job may use has a label with the kind of"
            " its GPUs",
        )
    best = _best(_offers(inheriting, offered, made_for), earlier)
    found = _landing_on(best.kind, best.plan, inheriting(best.kind.name).spec, known, before)
    found = found.model_copy(update={"gpu_memory": _mebibytes(best.kind.memory)})
    return _noted(found, f"planned for {best.kind.title}: chosen by the labels of the cluster's nodes")


def _allowing(spec: RFTJobSpec) -> tuple[Mapping[str, str], Sequence[Toleration]]:
    """Return the node selector and the tolerations of a spec. They decide which nodes the job may use."""
    resources = spec.resources or Resources()
    return resources.node_selector or {}, resources.tolerations or []


def _offered(
    known: Inventory, inheriting: Callable[[str | None], Inheriting], defaults: JobDefaults
) -> Mapping[Kind, list[Node]]:
    """Return the kinds of GPU that a job may use, each with the nodes that have it and allow the job.

    ``known`` has the nodes of the cluster. ``inheriting`` returns the job's spec with the platform's defaults
    for an accelerator. These ``defaults`` can have a node selector and tolerations, which decide which nodes
    with this accelerator the job may use.
    """
    offered = known.offered(*_allowing(inheriting(None).spec))
    own = defaults.accelerators or {}
    if not own:
        return offered
    found = {kind: nodes for kind, nodes in offered.items() if kind.name not in own}
    for name in own:
        of_name = known.offered(*_allowing(inheriting(name).spec))
        found |= {kind: nodes for kind, nodes in of_name.items() if kind.name == name}
    return found


def needs(plan: Plan) -> dict[str, float]:
    """Return the resource requests of the trainer's container in a plan: CPUs, bytes of memory, and GPUs.

    The keys are resources such as cpu, memory and ``nvidia.com/gpu``.
    """
    found = {CPU: quantity(plan.cpu or "0"), MEMORY: quantity(plan.memory or "0")}
    if plan.gpus:
        found[plan.gpu_resource or resource_of(plan.accelerator)] = float(plan.gpus)
    return found


def recorded(before: Plan | None) -> Kind | None:
    """Return the kind of GPU that the earlier plan ``before`` chose by the labels of nodes.

    Return ``None`` if there is no earlier plan, or if it has no kind that was chosen by labels.
    """
    if before is None or before.gpu_resource is None or before.gpu_memory is None:
        return None
    name = before.accelerator if before.accelerator in ACCELERATORS else None
    label = next(iter((before.node_selector or {}).items()), None)
    if name is None and before.accelerator not in (None, before.gpu_resource):
        label = (product_key(before.gpu_resource), before.accelerator)
    return Kind(before.gpu_resource, quantity(before.gpu_memory), name, label)


def for_kind(spec: RFTJobSpec, kind: Kind) -> RFTJobSpec:
    """Return a copy of the spec that asks for the given kind of GPU in ``resources.accelerator``.

    The copy has the name of the kind, or its memory if the kind is not in the catalogue.
    """
    named: dict[str, Any] = {"name": kind.name} if kind.name else {"memory": _mebibytes(kind.memory)}
    resources = (spec.resources or Resources()).model_copy(update={"accelerator": Accelerator(**named)})
    return spec.model_copy(update={"resources": resources})


def _named(name: str | None, offered: Mapping[Kind, list[Node]]) -> Kind | None:
    """Return the kind of GPU in ``offered`` whose name in the catalogue is ``name``.

    ``offered`` has the kinds that the job may use, each with its nodes. If several kinds have this name,
    return the one with the most nodes. Return ``None`` if none has it, or if ``name`` is ``None``.
    """
    kinds = [kind for kind in offered if name is not None and kind.name == name]
    return min(kinds, key=lambda kind: (-len(offered[kind]), kind.label or ()), default=None)


def _offers(
    inheriting: Callable[[str | None], Inheriting],
    offered: Mapping[Kind, list[Node]],
    made_for: Callable[[Inheriting], Plan],
) -> list[_Offer]:
    """Return every kind of GPU on which the job fits, each with its nodes and the job's plan for this kind.

    ``offered`` has the kinds that the job may use, each with its nodes. ``inheriting`` returns the job's spec
    with the platform's defaults for an accelerator. ``made_for`` returns the plan of such a spec.

    Raises:
        Unplannable: the job fits on no kind. The error is that of the kind with the most memory.
    """
    found, refused = [], {}
    for kind, nodes in offered.items():
        try:
            job = inheriting(kind.name)
            made = made_for(job._replace(spec=for_kind(job.spec, kind)))
            found.append(_Offer(kind, nodes, made.model_copy(update={"gpu_resource": kind.resource})))
        except Unplannable as error:
            refused[kind.memory, kind.title] = error
    if not found:
        largest = max(refused)
        raise _of_kind(refused[largest], largest[1])
    return found


def _of_kind(error: Unplannable, title: str) -> Unplannable:
    """Add the kind of GPU to the message of an error, if the error is that the run does not fit.

    Return other errors unchanged. ``title`` is the name of the kind. The message needs it because the planner
    chose the kind, and not the user.
    """
    if error.reason != Reason.DOES_NOT_FIT:
        return error
    return Unplannable(error.reason, f"planned for {title}, the largest kind of GPU in the cluster: {error}")


def _best(offers: list[_Offer], earlier: Kind | None) -> _Offer:
    def order(offer: _Offer) -> tuple[Any, ...]:
        wanted = needs(offer.plan)
        on_one_node = any(holds(node, wanted) for node in offer.nodes)
        return (
            not on_one_node,
            offer.plan.memory_parts is None,  # the user set a number of GPUs on which the run does not fit
            earlier is None or offer.kind.title != earlier.title,
            offer.plan.gpus,
            -len(offer.nodes),
            offer.kind.title,
            offer.kind.label or (),
        )

    return min(offers, key=order)


def _not_there(made: Plan, spec: RFTJobSpec, nodes: Inventory, offered: Mapping[Kind, list[Node]]) -> Plan:
    """Return the plan ``made`` for an accelerator that the spec names, but that no node has now, with a note.

    Usually the returned plan requires a node with the labels of this accelerator. So the pod waits until an
    autoscaler adds such a node.

    Some clusters have nodes with GPUs, but without labels for the kind of GPU. If the plan required labels
    there, the pod would wait forever. So in such a cluster the plan requires no labels. ``offered`` are the
    kinds of GPU that the job may use.
    """
    terms = _terms(made.accelerator, spec, nodes)
    resources, resource = spec.resources or Resources(), resource_of(made.accelerator)
    allowed = usable(nodes, resources.node_selector or {}, resources.tolerations or [], resource)
    if not terms or not nodes or Inventory(allowed, nodes.table).is_unlabelled(resource):
        return _noted(made, _ELSEWHERE) if offered else made
    return _noted(made.model_copy(update={"node_terms": terms}), _LATER)


def _terms(name: str | None, spec: RFTJobSpec, nodes: Inventory) -> list[NodeTerm]:
    """Return the sets of node labels that identify an accelerator. A node needs all labels of one set.

    Return [] if the user's node selector uses one of these labels, because the user then chooses the nodes.
    """
    theirs = (spec.resources.node_selector if spec.resources is not None else None) or {}
    terms = kind_labels.terms(name, nodes.table)
    return [] if any(label.key in theirs for term in terms for label in term.labels) else terms


def _landing_on(
    kind: Kind,
    made: Plan,
    spec: RFTJobSpec,
    nodes: Inventory,
    before: Plan | None,
    *,
    named: bool = False,
) -> Plan:
    """Return the plan ``made`` with a kind of GPU, and with the labels that the pod's node must have for it.

    - ``node_terms`` are sets of labels, which autoscalers need. The node must have one of the sets. They are
      set in three cases: the spec names the kind (``named``), other kinds of GPU have the same resource, or
      the earlier plan ``before`` has sets too.
    - ``node_selector`` is a single label. Kueue compares it with the node labels of a ResourceFlavor. It is
      set in two cases: other kinds of GPU have the same resource, or the earlier plan has this label too.

    A label is left out if the user's node selector has a value for it.
    """
    update: dict[str, Any] = {"accelerator": kind.title, "gpu_resource": kind.resource}
    theirs = (spec.resources.node_selector if spec.resources is not None else None) or {}
    terms = _terms(kind.name, spec, nodes)
    if terms and (named or (before is not None and before.node_terms) or nodes.has_others(kind)):
        update["node_terms"] = terms
    # The node selector names no instance type, because it would exclude other instance types with this GPU.
    if kind.label is not None and kind.label[0] != INSTANCE and kind.label[0] not in theirs:
        selector = dict([kind.label])
        bound = before is not None and before.node_selector == selector
        if bound or nodes.has_others(kind):
            update["node_selector"] = selector
    return made.model_copy(update=update)


def _noted(made: Plan, note: str) -> Plan:
    return made.model_copy(update={"notes": [note, *(made.notes or [])]})


def _mebibytes(memory: float) -> str:
    return f"{int(memory // 2**20)}Mi"
