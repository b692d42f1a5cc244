"""Every class of the product has a name that no other class has."""

import ast
from collections import defaultdict

from tests.unit.program_support import programs


def test_no_class_name_stands_for_two_things() -> None:
    found = defaultdict(list)
    for path, tree in programs().items():
        for node in ast.walk(tree) if path.startswith(("operator/", "trainer-image/")) else ():
            if isinstance(node, ast.ClassDef):
                found[node.name].append(f"{path}:{node.lineno}")
    assert {name: places for name, places in found.items() if len(places) > 1} == {}
