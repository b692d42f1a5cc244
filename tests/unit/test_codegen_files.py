"""The generated files agree with the pydantic models of ``rft_api``."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from rft_api.base import Model
from rft_api.job import RFTJobSpec
from rft_api.schema import CannotLower, structural
from rft_codegen.__main__ import drift, generated_files, main
from rft_codegen.crd import crd

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def generated() -> None:
    """Generate the files once before the tests, because each test may use only 2 s of CPU time."""
    generated_files()


def test_the_committed_files_are_up_to_date() -> None:
    assert drift(ROOT) == []


def test_a_crd_edited_by_hand_fails_the_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(tmp_path)]) == 0
    path = tmp_path / "crds" / "rftjobs.rft.dev.yaml"
    path.write_text(path.read_text().replace("maximum: 100", "maximum: 200", 1))
    assert main(["--check", "--root", str(tmp_path)]) == 1
    assert "maximum: 200" in capsys.readouterr().err


def walk(schema: dict[str, Any], inside_list: bool = False) -> list[tuple[dict[str, Any], bool]]:
    found = [(schema, inside_list)]
    for child in schema.get("properties", {}).values():
        found += walk(child, inside_list)
    if "items" in schema:
        found += walk(schema["items"], True)
    if isinstance(schema.get("additionalProperties"), dict):
        found += walk(schema["additionalProperties"], True)
    return found


def test_the_schema_is_structural_and_has_no_default_inside_lists() -> None:
    schema = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for node, inside_list in walk(schema):
        assert not {"$ref", "anyOf", "const", "title"} & set(node)
        assert "type" in node or node.get("x-kubernetes-preserve-unknown-fields")
        assert not (inside_list and "default" in node), node
        if isinstance(node.get("exclusiveMinimum"), float | int):
            assert node["exclusiveMinimum"] is True


def test_an_object_with_only_default_fields_has_a_default_itself() -> None:
    spec = structural(RFTJobSpec, defaults=True)
    assert spec["properties"]["sampling"]["default"] == {}
    assert spec["properties"]["sampling"]["properties"]["topK"]["default"] == 40


def test_a_constraint_that_cannot_be_converted_is_an_error() -> None:
    class Odd(Model):
        number: int = Field(4, multiple_of=2)

    with pytest.raises(CannotLower, match="multipleOf"):
        structural(Odd, defaults=True)
