"""The reference page lists every field of the RFTJob with its range and default."""

import re
from typing import Any

from rft_api import rules
from rft_api.job import RFTJobSpec
from rft_api.schema import structural
from rft_api.status import RFTJobStatus
from rft_codegen.reference import reference

PAGE = reference()


def sections() -> dict[str, str]:
    """Return the text of each section of the reference page. The key is the path in its heading."""
    parts = re.split(r"(?m)^## <code>(.*)</code>$", PAGE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def objects(schema: dict[str, Any], path: str) -> dict[str, dict[str, Any]]:
    """Return the schema of each object at or below ``path``. The key is the object's path on the page."""
    found = {path: schema} if "properties" in schema else {}
    for name, child in schema.get("properties", {}).items():
        found |= objects(child, f"{path}.{name}")
    if "items" in schema:
        found |= objects(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        found |= objects(schema["additionalProperties"], f"{path}.&lt;name&gt;")
    return found


def test_every_object_of_the_crd_has_a_section_with_every_field() -> None:
    written = sections()
    crd = objects(structural(RFTJobSpec, defaults=False), "spec")
    crd |= objects(structural(RFTJobStatus, defaults=False), "status")
    for path, schema in crd.items():
        holders = [text for first, text in written.items() if first == path or f"<code>{path}</code>" in text]
        assert holders, path
        for field in schema["properties"]:
            assert any(f"| <code>{field}</code> |" in text for text in holders), f"{path}.{field}"


def test_a_field_has_its_type_default_range_and_meaning() -> None:
    assert (
        "| <code>topK</code> | whole number | `40` | 0 to 100 | Only the topK most"
        in sections()["spec.sampling"]
    )
    line = next(row for row in sections()["spec.training"].splitlines() if "<code>loraRank</code>" in row)
    assert "`4` or `8` or `16` or `32` | `8` |" in line


def test_every_link_points_to_a_section() -> None:
    anchors = {re.sub(r"[^a-z0-9_-]", "", path.lower()) for path in sections()}
    links = re.findall(r"\]\(#([^)]*)\)", PAGE)
    assert len(links) > 30
    assert set(links) <= anchors


def test_every_rule_is_on_the_page_with_its_docstring() -> None:
    for rule in rules.RULES:
        assert rule.text
        assert f"| {rule.name.replace('_', ' ')} | {' '.join(rule.text.split())} |" in PAGE


def test_no_table_row_contains_an_unescaped_bar() -> None:
    for row in PAGE.splitlines():
        if row.startswith("| <code>"):
            assert row.count("|") == 6, row
