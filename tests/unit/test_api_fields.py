"""The path of an API field leads to the field's description, default and range."""

import pytest

from rft_advice.guide import NINE, value_of
from rft_api.fields import UnknownField, all_fields, find
from rft_api.validation import parse
from tests.manifests import manifest


def test_a_field_is_found_with_and_without_the_prefix_spec() -> None:
    assert find("sampling.topK") == find("spec.sampling.topK")
    assert find("sampling.topK").default == 40
    assert find("status.reward.best").path == "status.reward.best"


@pytest.mark.parametrize("path", ["graders.numeric", "graders[].numeric", "spec.graders[0].numeric"])
def test_the_index_of_a_list_item_may_be_left_out(path: str) -> None:
    assert "tolerance" in find(path).children


def test_ranges_and_choices_come_from_the_models() -> None:
    assert find("training.epochs").allowed == "1 to 10"
    assert find("training.loraRank").allowed == "one of 4, 8, 16, 32"
    assert find("training.batchSizeTokens").allowed == "at least 1024"
    assert find("training.loraRank").allows(16)
    assert not find("training.loraRank").allows(17)
    assert not find("sampling.temperature").allows(2.1)
    assert not find("sampling.numRollouts").allows(1)


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("sampling.top_k", "spec.sampling.topK"),
        ("topK", "spec.sampling.topK"),
        ("training.learningrate", "spec.training.learningRate"),
        ("training.lerningRate", "spec.training.learningRate"),
        ("zzz", None),
    ],
)
def test_the_error_for_an_unknown_field_names_the_most_similar_one(wrong: str, meant: str | None) -> None:
    with pytest.raises(UnknownField) as caught:
        find(wrong)
    assert caught.value.meant == meant


def test_a_bound_that_is_not_allowed_itself_is_told_and_checked() -> None:
    above = find("training.maxGradNorm")
    assert above.allowed == "above 0"
    assert not above.allows(0)
    assert above.allows(0.1)
    below = find("training.clipLow")
    assert below.allowed == "at least 0 and below 1"
    assert below.allows(0)
    assert not below.allows(1)


def test_the_guide_has_a_text_for_each_of_the_nine_parameters() -> None:
    paths = {path for path in all_fields() if path.count(".") == 2}
    assert len(NINE) == 9
    assert {guide.path for guide in NINE} <= paths
    for guide in NINE:
        assert all((guide.does, guide.too_low, guide.too_high, guide.change))


def test_the_value_at_a_path_is_that_of_the_spec() -> None:
    spec = parse(manifest(sampling={"topK": 7})).spec
    assert value_of(spec, "spec.sampling.topK") == 7
    assert value_of(spec, "spec.training.learningRate") == 1e-4
    assert value_of(spec, "spec.stop.maxSteps") is None
