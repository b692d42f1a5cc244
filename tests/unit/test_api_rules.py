"""Each rule across fields speaks when it should, with the field, and is silent otherwise."""

from typing import Any

import pytest

from rft_api import rules
from rft_api.validation import check, parse
from tests.manifests import manifest

GRADER = {"name": "right", "numeric": {}}

BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "dataset_has_one_source": ({"dataset": {"uri": "./a", "configMap": {"name": "b"}}}, "spec.dataset"),
    "storage_has_one_kind": ({"storage": {}}, "spec.storage"),
    "grader_has_one_kind": ({"graders": [{"name": "right"}]}, "spec.graders[0]"),
    "python_grader_has_one_source": (
        {"graders": [{"name": "right", "python": {}}]},
        "spec.graders[0].python",
    ),
    "grader_names_are_unique": ({"graders": [GRADER, GRADER]}, "spec.graders[1].name"),
    "grader_scale_rises": (
        {"graders": [{**GRADER, "scale": {"min": 1, "max": 1}}]},
        "spec.graders[0].scale",
    ),
    "marker_goes_with_marker_extraction": (
        {"graders": [{"name": "right", "numeric": {"extract": "marker"}}]},
        "spec.graders[0].numeric",
    ),
    "completion_fits_context": (
        {"training": {"maxContextLength": 2048}, "sampling": {"maxTokens": 2048}},
        "spec.sampling.maxTokens",
    ),
    "context_fits_batch": (
        {"training": {"maxContextLength": 40000, "batchSizeTokens": 32768}},
        "spec.training.maxContextLength",
    ),
    "completion_fits_default_context": (
        {"training": {"batchSizeTokens": 2048}},
        "spec.sampling.maxTokens",
    ),
    "extra_volume_has_one_source": (
        {"template": {"volumes": [{"name": "m", "mountPath": "/m"}]}},
        "spec.template.volumes[0]",
    ),
    "suspending_needs_storage": ({"suspend": True}, "spec.suspend"),
}


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_each_rule_names_the_field_it_refuses(rule: rules.Rule) -> None:
    spec, path = BROKEN[rule.__name__]
    assert [p.path for p in check(manifest(**spec)).problems] == [path]
    assert list(rule(parse(manifest()).spec)) == []


def test_all_violations_are_reported_at_once() -> None:
    problems = check(manifest(storage={}, graders=[{"name": "right"}], suspend=True)).problems
    assert {p.path for p in problems} == {"spec.storage", "spec.graders[0]"}
