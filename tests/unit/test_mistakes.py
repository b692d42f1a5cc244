"""For each common mistake the message names the field, the value, what is allowed and the corrected value."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from rft_api import ahead
from rft_api.forms import FORMS
from rft_api.loader import load_documents
from rft_api.validation import check
from rft_graders import ahead as graders_ahead

MISTAKES: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "mistakes.yaml").read_text())
VALID = load_documents("""
apiVersion: rft.dev/v1alpha1
kind: RFTJob
metadata: {name: job}
spec:
  model: {name: Qwen/Qwen2.5-0.5B-Instruct}
  dataset: {uri: ./rows.jsonl}
  graders: [{name: right, numeric: {}}]
  storage: {claimTemplate: {size: 20Gi}}
""")[0].body
REMOVE = "REMOVE"


def steps(path: str) -> list[str | int]:
    """Return the keys and indices of a path such as ``spec.graders[0].name``."""
    return [int(part) if part.isdigit() else part for part in re.findall(r"[^.\[\]]+", path)]


def broken(path: str, value: Any) -> dict[str, Any]:
    """Return the valid manifest with ``value`` in the field at ``path``. If ``value`` is ``REMOVE``, the
    field is missing.
    """
    body: Any = copy.deepcopy(VALID)
    found = body
    *parents, last = steps(path)
    for part in parents:
        if isinstance(part, str) and not isinstance(found.get(part), dict | list):
            found[part] = {}
        found = found[part]
    if value == REMOVE:
        del found[last]
    else:
        found[last] = value
    manifest: dict[str, Any] = body
    return manifest


def said(manifest: dict[str, Any]) -> str:
    job, problems = check(manifest)
    if job is not None:
        problems = (*ahead.problems(job.spec), *graders_ahead.problems(job.spec, {}))
    return "\n".join(map(str, problems))


def shown(value: object) -> str:
    """Return a number or a text as messages show it, and "" for any other value."""
    return repr(value) if isinstance(value, str) else str(value) if isinstance(value, int | float) else ""


def test_the_manifest_without_a_mistake_is_valid_and_there_are_a_hundred_mistakes() -> None:
    assert said(VALID) == ""
    assert len(MISTAKES) >= 100
    assert len({json.dumps([each["at"], each["wrong"]]) for each in MISTAKES}) == len(MISTAKES)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda each: f"{each['at']} {each['wrong']!r:.30}")
def test_a_mistake_is_answered_with_field_value_what_is_allowed_and_the_fix(mistake: dict[str, Any]) -> None:
    message = said(broken(mistake["at"], mistake["wrong"])).split("\n")[0]
    assert message.startswith(f"{mistake['field']}: ")
    assert mistake["allowed"] in message
    assert mistake["fix"]
    assert message.endswith(mistake["fix"])
    is_named = mistake["field"] == mistake["at"] and "no such field" not in message
    if is_named and mistake["wrong"] != REMOVE and mistake["at"][-3:] != "[0]":
        assert shown(mistake["wrong"]) in message
    assert not any(pattern in message for pattern in FORMS)
