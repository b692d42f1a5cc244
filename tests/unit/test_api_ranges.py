"""The nine parameters that ``rft explain`` lists have the documented ranges and defaults."""

from typing import Any

import pytest

from rft_api.effective import effective
from rft_api.job import RFTJobSpec
from rft_api.schema import structural
from rft_api.validation import check
from tests.manifests import manifest

# From the tuning guide: name, section, default, accepted limits, refused values next to them.
NINE: list[tuple[str, str, Any, list[Any], list[Any]]] = [
    ("learningRate", "training", 1e-4, [1e-5, 5e-4], [9.9e-6, 5.1e-4]),
    ("epochs", "training", 1, [1, 10], [0, 11, 1.5]),
    ("loraRank", "training", 8, [4, 8, 16, 32], [2, 5, 64]),
    ("batchSizeTokens", "training", 32768, [1024, 10**6], [1023]),
    ("temperature", "sampling", 0.7, [0.1, 2.0], [0.0, 0.09, 2.1]),
    ("topP", "sampling", 1.0, [0, 1, 0.5], [-0.1, 1.1]),
    ("topK", "sampling", 40, [0, 100], [-1, 101]),
    ("numRollouts", "sampling", 4, [2, 8], [1, 9]),
    ("maxTokens", "sampling", 2048, [16, 16384], [15, 16385]),
]


@pytest.mark.parametrize(("field", "section", "default", "accepted", "refused"), NINE)
def test_the_nine_parameters_have_the_documented_default_and_range(
    field: str, section: str, default: Any, accepted: list[Any], refused: list[Any]
) -> None:
    job, problems = check(manifest())
    assert job is not None, problems
    assert job.spec.dump()[section][field] == default
    for value in accepted:
        # The batch is large enough for the longest completion, so that only the field's own range is tested.
        section_values = (
            {"batchSizeTokens": 10**6} if section == "training" and field != "batchSizeTokens" else {}
        )
        spec: dict[str, Any] = {"training": section_values, "sampling": {}}
        spec[section] = {**spec[section], field: value}
        if field == "batchSizeTokens":
            spec["sampling"] = {"maxTokens": 16}
        assert check(manifest(**spec)).problems == (), (field, value)
    for value in refused:
        problems = check(manifest(**{section: {field: value}})).problems
        assert [p.path for p in problems] == [f"spec.{section}.{field}"], (field, value)
        assert str(value) in problems[0].message


def test_a_value_out_of_range_is_refused_with_field_value_and_range() -> None:
    (problem,) = check(manifest(sampling={"topK": 101})).problems
    assert str(problem) == "spec.sampling.topK: 101 is out of range; allowed is 0 to 100; write 100"


def test_a_quoted_number_is_refused_with_the_fix() -> None:
    (problem,) = check(manifest(training={"epochs": "2"})).problems
    assert str(problem) == "spec.training.epochs: '2' is not a whole number 1 to 10; write 2 without quotes"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"training": {"loraRank": "16"}}, "'16' is not one of 4, 8, 16, 32; write 16 without quotes"),
        (
            {"training": {"learningRate": "1e-4"}},
            "'1e-4' is not a number 1e-05 to 0.0005; write 1e-4 without quotes",
        ),
        ({"suspend": "true"}, "'true' is not true or false; write true without quotes"),
        ({"model": {"name": 7}}, "7 is not a text; write it in quotes: '7'"),
        (
            {"model": {"name": "m", "revision": True}},
            "true is not a text; write it in quotes: 'true'"
            " (YAML reads y, yes and on without quotes as true, too)",
        ),
        (
            {"training": {"schedule": "Cosine"}},
            "'Cosine' is not one of 'constant', 'linear', 'cosine'; did you mean 'cosine'?",
        ),
        (
            {"training": {"loraTargets": "all_linear"}},
            "'all_linear' is not one of 'all-linear', 'attention'; did you mean 'all-linear'?",
        ),
        ({"training": {"loraRank": 7}}, "7 is not one of 4, 8, 16, 32; write 8"),
    ],
)
def test_the_error_for_a_wrong_value_contains_the_fix(spec: dict[str, Any], message: str) -> None:
    (problem,) = check(manifest(**spec)).problems
    assert problem.message == message


@pytest.mark.parametrize(
    ("spec", "path", "hint"),
    [
        ({"sampling": {"top_k": 5}}, "spec.sampling.top_k", "did you mean spec.sampling.topK?"),
        ({"sampling": {"topk": 5}}, "spec.sampling.topk", "did you mean spec.sampling.topK?"),
        ({"topK": 5}, "spec.topK", "did you mean spec.sampling.topK?"),
        ({"training": {"learning_rate": 1e-4}}, "spec.training.learning_rate", "spec.training.learningRate?"),
    ],
)
def test_the_error_for_an_unknown_field_names_the_most_similar_one(
    spec: dict[str, Any], path: str, hint: str
) -> None:
    (problem,) = check(manifest(**spec)).problems
    assert problem.path == path
    assert hint in problem.message


def test_null_means_the_default_where_there_is_one_and_is_refused_elsewhere() -> None:
    job, _ = check(manifest(sampling={"topK": None}, training=None))
    assert job is not None
    assert job.spec.sampling.top_k == 40
    (problem,) = check(manifest(training={"seed": None})).problems
    assert str(problem) == "spec.training.seed: is null; give it a value or remove the line"


def test_whole_floats_are_whole_numbers_as_on_the_api_server() -> None:
    job, _ = check(manifest(training={"epochs": 2.0}))
    assert job is not None
    assert job.spec.training.epochs == 2


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 10**30, 1e30])
def test_a_whole_number_has_64_bits_as_on_the_api_server(value: float) -> None:
    (problem,) = check(manifest(training={"batchSizeTokens": value})).problems
    assert problem.path == "spec.training.batchSizeTokens"
    assert "whole number" in problem.message


def test_null_in_an_unknown_field_is_refused_with_the_most_similar_field() -> None:
    (problem,) = check(manifest(sampling={"top_k": None})).problems
    assert str(problem) == "spec.sampling.top_k: no such field; did you mean spec.sampling.topK?"


@pytest.mark.parametrize(
    ("field", "item"),
    [
        ("env", {"name": "A"}),
        ("imagePullSecrets", {"name": "a"}),
        ("volumes", {"name": "a", "mountPath": "/a", "configMap": "c"}),
    ],
)
def test_two_list_items_of_the_same_name_are_refused(field: str, item: dict[str, Any]) -> None:
    (problem,) = check(manifest(template={field: [item, item]})).problems
    assert str(problem) == (
        f"spec.template.{field}[1]: {item['name']!r} is also the name of spec.template.{field}[0];"
        " give each item its own"
    )


def test_a_value_that_is_not_a_scalar_gives_a_single_error() -> None:
    (problem,) = check(manifest(model={"name": "m", "chatTemplateArgs": {"a": [1]}})).problems
    assert str(problem) == "spec.model.chatTemplateArgs.a: [1] is not a text, a number, true or false"


@pytest.mark.parametrize("objective", ["grpo", "dapo", "gspo", "drGrpo", "cispo"])
def test_every_objective_has_effective_parameters(objective: str) -> None:
    job, _ = check(manifest(training={"objective": objective}))
    assert job is not None
    assert (effective(job.spec, "uid").clip_low is None) == (objective == "cispo")


def test_booleans_are_not_numbers() -> None:
    assert check(manifest(training={"epochs": True})).problems


def test_every_field_of_the_spec_has_a_description() -> None:
    def undocumented(schema: dict[str, Any], path: str) -> list[str]:
        missing = [] if schema.get("description") else [path]
        for name, child in schema.get("properties", {}).items():
            missing += undocumented(child, f"{path}.{name}")
        if schema.get("items", {}).get("type") == "object":
            missing += undocumented(schema["items"], f"{path}[]")
        return missing

    assert undocumented(structural(RFTJobSpec, defaults=True), "spec") == []
