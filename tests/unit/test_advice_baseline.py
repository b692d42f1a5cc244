"""What differs between two specs, over the values that a run uses."""

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


def test_equal_specs_differ_in_nothing() -> None:
    assert found({}, {}) == []


def test_a_default_that_is_written_out_is_no_change() -> None:
    assert found({}, {"training": {"learningRate": 1e-4, "clipLow": 0.2}, "sampling": {"topK": 40}}) == []


def test_a_change_has_its_path_and_both_values() -> None:
    wanted = [{"path": "spec.training.learningRate", "from": "0.0001", "to": "0.0002"}]
    assert found({}, {"training": {"learningRate": 2e-4}}) == wanted


def test_what_follows_from_a_parameter_is_listed_and_not_counted() -> None:
    after = spec(sampling={"maxTokens": 4096})
    paths = [change.path for change in changes(spec(), after)]
    assert paths == ["spec.training.maxContextLength", "spec.sampling.maxTokens"]
    assert compare("base", after, manifest()).message is None


def test_an_objective_without_a_lower_clip_has_no_value_there() -> None:
    by_path = {change["path"]: change for change in found({}, {"training": {"objective": "cispo"}})}
    assert by_path["spec.training.clipLow"] == {"path": "spec.training.clipLow", "from": "0.2"}


def test_graders_and_their_kinds_are_compared() -> None:
    after = {"graders": [{"name": "right", "math": {}, "weight": 2}]}
    by_path = {change["path"]: change for change in found({}, after)}
    assert by_path["spec.graders[0].weight"] == {"path": "spec.graders[0].weight", "from": "1.0", "to": "2.0"}
    assert by_path["spec.graders[0].math.field"]["to"] == "answer"
    assert "to" not in by_path["spec.graders[0].numeric.extract"]


def test_where_it_runs_is_no_parameter() -> None:
    assert found({}, {"resources": {"cpu": "4"}, "retry": {"limit": 0}, "checkpoint": {"keep": 1}}) == []


def test_more_than_one_of_the_nine_parameters_is_warned_about() -> None:
    said = compare("base", spec(training={"epochs": 2}, sampling={"topP": 0.9}), manifest()).message
    assert said is not None
    assert "spec.training.epochs, spec.sampling.topP" in said
    assert "one change at a time" in said
    assert compare("base", spec(training={"epochs": 2, "seed": 7}), manifest()).message is None


def test_a_baseline_that_is_missing_or_not_valid_is_said() -> None:
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


def test_the_documented_parameters_are_fields_that_every_spec_has() -> None:
    body: Any = {"spec": spec().dump()}
    for path in (guide.path for guide in NINE):
        value = body
        for part in path.split("."):
            value = value[part]
