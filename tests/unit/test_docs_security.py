"""docs/security.md names a test for each statement. Its tables agree with the code and the chart."""

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from rft_api.annotations import PROFILE, PROFILES, REFUSED
from rft_api.job import RFTJobSpec
from rft_api.resources import Template
from rft_codegen.crd import object_schema
from tests.unit.chart_support import one, rendered

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`((?:unit|trainer|integration|e2e|parity|modern)/test_\w+\.py)::(test_\w+)`")
OPERATOR = "rft-rft-operator"
Row = list[str]


@cache
def functions(module: str) -> set[str]:
    tree = ast.parse((ROOT / "tests" / module).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def tables() -> list[list[Row]]:
    """Return the rows of each table, beginning with its headers. The line below the headers is left out."""
    blocks = re.findall(r"(?:^\|.*\n)+", DOCS, re.MULTILINE)
    split = [
        [[cell.strip() for cell in line.strip("|").split(" |")] for line in b.splitlines()] for b in blocks
    ]
    return [[rows[0], *rows[2:]] for rows in split]


def test_every_named_test_exists() -> None:
    named = NAMED.findall(DOCS)
    assert len(named) > 50
    missing = [f"{module}::{name}" for module, name in named if name not in functions(module)]
    assert missing == []


def test_no_test_is_named_in_another_way() -> None:
    assert re.findall(r"test_\w+", NAMED.sub("", DOCS)) == ["test_docs_security"]


def test_every_row_of_a_table_with_the_column_held_by_has_a_test_if_it_forbids_or_promises() -> None:
    held = [rows for rows in tables() if rows[0][-1] == "held by"]
    assert len(held) >= 5
    without = [
        row[0] for rows in held for row in rows[1:] if not NAMED.search(row[-1]) and "](#" not in row[-1]
    ]
    assert without == [
        "whoever installs the chart",
        "`template.imagePullPolicy`, `template.imagePullSecrets`",
    ]


def test_every_field_of_the_template_is_in_the_table_of_what_it_gives() -> None:
    (fields,) = (rows for rows in tables() if rows[0][0] == "field")
    named = set(re.findall(r"`template\.(\w+)`", " ".join(row[0] for row in fields[1:])))
    assert named == {info.alias or name for name, info in Template.model_fields.items()}


def test_no_field_of_a_spec_names_a_namespace() -> None:
    found = names(object_schema()["properties"]["spec"])
    assert len(found) > 100
    assert [name for name in found if "namespace" in name.lower() and name != "namespaceSelector"] == []
    assert "namespace" not in RFTJobSpec.model_fields


def test_every_annotation_that_is_refused_is_in_the_table() -> None:
    (rows,) = (rows for rows in tables() if rows[0][0] == "annotations")
    listed = set(re.findall(r"`([^`]+)`", " ".join(row[0] for row in rows[1:])))
    begins = {f"{begin}*" for group in REFUSED for begin in group.begins}
    ends = {f"*{end}" for group in REFUSED for end in group.ends}
    assert listed == begins | ends | {f"{begin}*" for begin in PROFILES} | {PROFILE}


def names(schema: Any) -> list[str]:
    """Return the names of all fields in a schema, at every level."""
    if not isinstance(schema, dict):
        return []
    own = list(schema.get("properties", {}))
    inner = [*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")]
    return own + [name for each in inner for name in names(each)]


def documented(heading: str) -> set[tuple[str, frozenset[str]]]:
    """Return the rights in the first table after ``heading``: pairs of a resource and its verbs."""
    after = DOCS[DOCS.index(heading) :]
    rows = re.findall(
        r"^\| `([\w/]+)` \| ([a-z, ]+) \| ", after[: after.index("\n\n", after.index("| why |"))], re.M
    )
    return {(resource, frozenset(verbs.split(", "))) for resource, verbs in rows}


@pytest.mark.parametrize(
    ("heading", "kind", "name", "namespace"),
    [
        ("## Roles", "Role", OPERATOR, "a"),
        ("At cluster scope in any case", "ClusterRole", f"sys-{OPERATOR}", None),
        ("In its own namespace", "Role", f"{OPERATOR}-own", "sys"),
    ],
)
def test_the_tables_of_rights_are_those_of_the_chart(
    heading: str, kind: str, name: str, namespace: str | None
) -> None:
    role = one(rendered("watch.namespaces={a}"), kind, name)
    assert role["metadata"].get("namespace") == namespace
    granted = {
        (resource, frozenset(rule["verbs"])) for rule in role["rules"] for resource in rule["resources"]
    }
    assert documented(heading) == granted
