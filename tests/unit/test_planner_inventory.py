"""The inventory caches the answers to the planner's questions about a cluster's nodes."""

from rft_api.resources import Toleration
from rft_planner.inventory import MAX_ANSWERS, Inventory, inventory
from rft_planner.nodes import Node, Taint, kinds_of


def _node(name: str, product: str, **labels: str) -> Node:
    return Node(name, {"nvidia.com/gpu.product": product, **labels}, {"nvidia.com/gpu": 8})


L4 = [_node(f"l4-{n}", "NVIDIA-L4", zone="a") for n in range(3)]
T4 = [_node(f"t4-{n}", "Tesla-T4", zone="b") for n in range(2)]
TAINTED = Node("own", L4[0].labels, L4[0].allocatable, (Taint("team", "x"),))


def test_the_offered_kinds_of_gpu_are_those_in_the_nodes_labels() -> None:
    found = Inventory([*L4, *T4, Node("cpu", {}, {"cpu": 8})]).offered({}, [])
    assert {kind.name: nodes for kind, nodes in found.items()} == {"nvidia-l4-24gb": L4, "nvidia-t4-16gb": T4}


def test_answers_depend_on_selector_and_tolerations() -> None:
    known = Inventory([*L4, *T4, TAINTED])
    (l4,), (t4,) = kinds_of(L4[0]), kinds_of(T4[0])
    for _ in range(2):
        assert known.offered({"zone": "b"}, []) == {t4: T4}
        assert known.offered({"zone": "a"}, []) == {l4: L4}
        assert known.offered({"zone": "a"}, [Toleration(operator="Exists")]) == {l4: [*L4, TAINTED]}


def test_a_repeated_question_is_answered_from_the_cache() -> None:
    known = Inventory(L4)
    assert known.offered({"zone": "a"}, []) is known.offered({"zone": "a"}, [])
    assert inventory(known) is known
    assert inventory([*known]) == known


def test_the_cache_of_answers_is_limited() -> None:
    known = Inventory(L4)
    for number in range(3 * MAX_ANSWERS):
        assert not known.offered({"kubernetes.io/hostname": str(number)}, [])
    assert len(known._offered) <= MAX_ANSWERS


def test_another_kind_of_gpu_with_the_same_resource_is_found() -> None:
    (l4,), (t4,) = kinds_of(L4[0]), kinds_of(T4[0])
    assert not Inventory(L4).has_others(l4)
    mixed = Inventory([*L4, *T4])
    assert [mixed.has_others(l4), mixed.has_others(t4), mixed.has_others(l4)] == [True] * 3
