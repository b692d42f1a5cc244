"""Finds the kinds of GPU that a pod may use on the nodes of a cluster, and caches the results.

The cache saves time: many jobs have the same node selector and tolerations, and a cluster may have thousands
of nodes.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

from rft_api.resources import Toleration
from rft_planner import kind_labels
from rft_planner.kind_labels import Table
from rft_planner.nodes import Kind, Node, kinds_of, usable

MAX_ANSWERS = 64
"""Maximum number of cached results. There is one for each node selector with its tolerations. If the cache is
full, it is emptied."""

_Question = tuple[frozenset[tuple[str, str]], tuple[str, ...]]


class Inventory(tuple[Node, ...]):
    """The nodes of a cluster at one time, with a cache of the kinds of GPU that pods may use on them.

    Threads may share an instance. At worst, two threads compute the same result.
    """

    table: Table
    """The sets of node labels that identify the kind of a node's GPUs, by accelerator."""
    _offered: dict[_Question, dict[Kind, list[Node]]]
    _mixed: dict[Kind, bool]

    def __new__(cls, nodes: Iterable[Node] = (), table: Table = kind_labels.TABLE) -> "Inventory":
        """Create an inventory of ``nodes`` with an empty cache."""
        made = super().__new__(cls, nodes)
        made.table, made._offered, made._mixed = table, {}, {}
        return made

    @cached_property
    def _kinds(self) -> list[tuple[Node, list[Kind]]]:
        return [(node, kinds) for node in self if (kinds := kinds_of(node, self.table))]

    @property
    def has_gpus(self) -> bool:
        """Whether any node has GPUs whose kind can be told by the node's labels."""
        return bool(self._kinds)

    def offered(
        self, selector: Mapping[str, str], tolerations: Sequence[Toleration]
    ) -> Mapping[Kind, list[Node]]:
        """Return the kinds of GPU that a pod may use, each with the nodes that have it and allow the pod.

        ``selector`` and ``tolerations`` are the node selector and the tolerations of the pod. The caller must
        not change the result, because it is cached.
        """
        question = (frozenset(selector.items()), tuple(each.model_dump_json() for each in tolerations))
        found = self._offered.get(question)
        if found is None:
            if len(self._offered) >= MAX_ANSWERS:
                self._offered = {}
            found = self._offered[question] = self._answer(selector, tolerations)
        return found

    def _answer(
        self, selector: Mapping[str, str], tolerations: Sequence[Toleration]
    ) -> dict[Kind, list[Node]]:
        found: dict[Kind, list[Node]] = {}
        for node, kinds in self._kinds:
            for kind in kinds:
                if usable([node], selector, tolerations, kind.resource):
                    found.setdefault(kind, []).append(node)
        return found

    def has_others(self, kind: Kind) -> bool:
        """Return whether some nodes have the extended resource of ``kind``, but no GPUs of this kind.

        The GPUs of these nodes are of another kind, or of an unknown kind. A pod that only requests the
        resource could get such a GPU.
        """
        if kind not in self._mixed:
            offering = (node for node in self if node.allocatable.get(kind.resource, 0) >= 1)
            self._mixed[kind] = any(kind not in kinds_of(node, self.table) for node in offering)
        return self._mixed[kind]

    def is_unlabelled(self, resource: str) -> bool:
        """Return whether nodes have this extended resource, but no node's labels tell the kind of its GPUs.

        ``resource`` is a name such as ``nvidia.com/gpu``. Return False if no node has it.
        """
        offering = [node for node in self if node.allocatable.get(resource, 0) >= 1]
        return bool(offering) and not any(kinds_of(node, self.table) for node in offering)


def inventory(nodes: Sequence[Node]) -> Inventory:
    """Return ``nodes`` as an ``Inventory``. If ``nodes`` already is one, return it with its cache."""
    return nodes if isinstance(nodes, Inventory) else Inventory(nodes)
