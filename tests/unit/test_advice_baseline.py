"""The differences between two specs.

If a spec does not set a field, the field's default is compared.
"""

from typing import Any

from rft_advice.baseline import changes, compare, named_in
from rft_advice.guide import NINE
from rft_api.job import RFTJobSpec
from rft_api.validation import parse
from tests.manifests import manifest


def spec(**fields: Any) -> RFTJobSpec:
    return parse(manifest(**fields)).spec


def found(before: dict[str, Any], after: dict[str, Any]) -> list[dict[str, Any]]:
    return [change.dump() for change in changes(spec(**before), spec(**after))]


def test_equal_specs_have_no_differences() -> None:
    assert found({}, {}) == []


def test_writing_out_a_default_is_not_a_change() -> None:
    assert found({}, {"training": {"learningRate": 1e-4, "clipLow": 0.2}, "sampling": {"topK": 40}}) == []


def test_a_change_has_its_path_and_both_values() -> None:
    wanted = [{"path": "spec.training.learningRate", "from": "0.0001", "to": "0.0002"}]
    assert found({}, {"training": {"learningRate": 2e-4}}) == wanted


def test_a_derived_value_is_listed_but_does_not_count_as_a_change() -> None:
    after = spec(sampling={"maxTokens": 4096})
    paths = [change.path for change in changes(spec(), after)]
    assert paths == ["spec.training.maxContextLength", "spec.sampling.maxTokens"]
    assert compare("base", after, manifest()).message is None


def test_a_parameter_that_an_objective_does_not_have_has_no_value() -> None:
    by_path = {change["path"]: change for change in found({}, {"training": {"objective": "cispo"}})}
    assert by_path["spec.training.clipLow"] == {"path": "spec.training.clipLow", "from": "0.2"}


def test_graders_and_their_kinds_are_compared() -> None:
    after = {"graders": [{"name": "right", "math": {}, "weight": 2}]}
    by_path = {change["path"]: change for change in found({}, after)}
    assert by_path["spec.graders[0].weight"] == {"path": "spec.graders[0].weight", "from": "1.0", "to": "2.0"}
    assert by_path["spec.graders[0].math.field"]["to"] == "answer"
    assert "to" not in by_path["spec.graders[0].numeric.extract"]


def test_resources_retries_and_checkpoints_are_not_compared() -> None:
    assert found({}, {"resources": {"cpu": "4"}, "retry": {"limit": 0}, "checkpoint": {"keep": 1}}) == []


def test_more_than_one_of_the_nine_parameters_is_warned_about() -> None:
    said = compare("base", spec(training={"epochs": 2}, sampling={"topP": 0.9}), manifest()).message
    assert said is not None
    assert "spec.training.epochs, spec.sampling.topP" in said
    assert "change one parameter at a time" in said
    assert compare("base", spec(training={"epochs": 2, "seed": 7}), manifest()).message is None


def test_a_missing_or_invalid_baseline_is_reported() -> None:
    assert compare("base", spec(), None).dump() == {
        "job": "base",
        "message": "There is no RFTJob base in this namespace.",
    }
    invalid = compare("base", spec(), manifest(storage={}))
    assert invalid.changes is None
    assert "spec.storage" in str(invalid.message)


def test_the_annotation_names_the_baseline() -> None:
    assert named_in({"metadata": {"annotations": {"rft.dev/baseline": "base"}}}) == "base"
    assert named_in({"metadata": {"annotations": {"rft.dev/baseline": ""}}}) is None
    assert named_in({"metadata": {}}) is None


def test_every_spec_has_the_nine_documented_parameters() -> None:
    body: Any = {"spec": spec().dump()}
    for path in (guide.path for guide in NINE):
        value = body
        for part in path.split("."):
            value = value[part]
