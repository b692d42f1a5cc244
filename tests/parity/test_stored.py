"""RFTJobs that an API server stored with an earlier CRD stay valid and unchanged.

The files in ``stored/`` were stored with the first CRD of v1alpha1. Never change these files to make a test
pass. A failure means that users' RFTJobs would be refused, or would lose fields.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from rft_api.loader import load_file
from rft_api.status import RFTJobStatus
from rft_api.validation import check
from rft_cli.local.manifest import is_job
from tests.parity.apiserver import complaints, stored
from tests.parity.gates import STORED_SCHEMA

ROOT = Path(__file__).parents[2]
STORED = sorted((Path(__file__).parent / "stored").glob("*.json"))
EXAMPLES = sorted((ROOT / "examples").rglob("*.yaml"))


def lost(before: Any, after: Any, path: str = "") -> list[str]:
    """Return the paths whose value in ``before`` is missing or different in ``after``."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [where for key in before for where in lost(before[key], after.get(key), f"{path}.{key}")]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [
            where
            for i, (b, a) in enumerate(zip(before, after, strict=True))
            for where in lost(b, a, f"{path}[{i}]")
        ]
    return [] if before == after else [path]


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_a_stored_object_is_valid_in_the_new_schema_and_loses_nothing(path: Path) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    assert complaints(document, STORED_SCHEMA) == []
    assert lost(document, stored(document, STORED_SCHEMA)) == []


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_a_stored_object_is_valid_in_the_models_and_is_written_back_unchanged(path: Path) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    job, problems = check(document)
    assert job is not None, problems
    assert lost(document["spec"], job.spec.dump()) == []
    again, problems = check({**document, "spec": job.spec.dump()})
    assert again is not None, problems
    assert again.spec == job.spec
    if "status" in document:
        status = RFTJobStatus.model_validate(document["status"], by_alias=True, by_name=False)
        assert lost(document["status"], status.dump()) == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_an_example_is_valid_everywhere_and_is_written_back_unchanged(path: Path) -> None:
    for document in load_file(path):
        if is_job(document.body):
            kept = stored(document.body, STORED_SCHEMA)
            assert complaints(document.body, STORED_SCHEMA) == []
            assert lost(document.body["spec"], kept["spec"]) == []
            job, problems = check(kept)
            assert job is not None, problems
            assert job.spec == check(document.body).job.spec  # type: ignore[union-attr]
            assert lost(kept["spec"], job.spec.dump()) == []


def test_the_stored_objects_have_nearly_every_field_of_the_spec() -> None:
    seen: set[str] = set()

    def visit(value: Any, path: str) -> None:
        seen.add(path)
        for key, inner in value.items() if isinstance(value, dict) else []:
            visit(inner, f"{path}.{key}")
        for inner in value if isinstance(value, list) else []:
            visit(inner, f"{path}[]")

    for path in STORED:
        visit(json.loads(path.read_text(encoding="utf-8"))["spec"], "spec")
    for field in (
        "spec.graders[].python.configMap.key",
        "spec.stop.deadline",
        "spec.template.volumes[].configMap",
    ):
        assert field in seen
    assert len(seen) > 150


def test_the_comparison_finds_lost_and_changed_values() -> None:
    assert lost({"a": [{"b": 1}], "c": 1.0}, {"a": [{"b": 2}], "c": 1}) == [".a[0].b"]
    assert lost({"a": 1}, {}) == [".a"]
