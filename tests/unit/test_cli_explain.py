"""rft explain: what a field means, when to change it, and which field a misspelt name stands for."""

import pytest
from typer.testing import CliRunner

from rft_advice.guide import NINE, Guide
from rft_api.fields import find
from rft_cli.main import app

runner = CliRunner()


def explain(*arguments: str) -> str:
    result = runner.invoke(app, ["explain", *arguments])
    assert result.exit_code == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("guide", NINE, ids=lambda guide: guide.path)
def test_each_of_the_nine_says_default_range_both_ends_and_its_advice(guide: Guide) -> None:
    text = explain(guide.path)
    for words in (guide.does, guide.too_low, guide.too_high, guide.change, guide.field.allowed):
        assert words in text
    assert f"Default     {guide.field.default}\n" in text
    assert "Advice about this field:" in text


def test_the_short_path_says_the_same_as_the_long_one() -> None:
    assert explain("sampling.topK") == explain("spec.sampling.topK")
    assert "top-k-above-50" in explain("sampling.topK")
    assert "in a run:" in explain("training.learningRate")


def test_without_a_field_the_nine_are_listed() -> None:
    text = explain()
    for guide in NINE:
        assert guide.path in text
        assert guide.does in text


def test_any_other_field_says_what_the_models_say() -> None:
    text = explain("storage")
    assert find("storage").description in text
    assert "claimTemplate" in text
    assert "storage-ephemeral" in explain("storage.ephemeral")
    assert "Default: 3." in explain("checkpoint.keep")


def test_a_field_that_is_like_no_other_says_how_to_list_fields() -> None:
    result = runner.invoke(app, ["explain", "foo"])
    assert result.exit_code == 1
    said = "error: no field foo; rft explain without a field lists those that are tuned most"
    assert " ".join(result.stderr.split()) == said


@pytest.mark.parametrize("wrong", ["sampling.top_k", "topK", "spec.sampling.topk"])
def test_an_unknown_field_exits_1_and_names_the_one_that_was_meant(wrong: str) -> None:
    result = runner.invoke(app, ["explain", wrong])
    assert result.exit_code == 1
    assert result.stderr == f"error: no field {wrong}; did you mean spec.sampling.topK?\n"
    assert result.stdout == ""
