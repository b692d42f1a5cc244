"""A rerun is a new job like an earlier job, but with some other values.

The rerun names the earlier job as its baseline.
"""

from typing import Any

import pytest

from rft_advice.baseline import ANNOTATION, changes
from rft_advice.rerun import NoSuchItem, rerun
from rft_advice.suggest import left_out
from rft_api.fields import UnknownField
from rft_api.validation import parse
from tests.manifests import manifest


def stored(**spec: Any) -> dict[str, Any]:
    """Return a job with the metadata and the status that an API server adds."""
    found = manifest(**spec)
    found["metadata"] |= {"uid": "u", "resourceVersion": "7", "namespace": "team", "labels": {"a": "b"}}
    found["status"] = {"phase": "Succeeded"}
    return found


def test_only_what_was_asked_for_changes() -> None:
    before = stored(training={"learningRate": 1e-4}, cancel=True)
    after = rerun(before, {"training.loraRank": 16})
    found = changes(parse(manifest(training={"learningRate": 1e-4})).spec, parse(after).spec)
    assert [(change.path, change.to) for change in found] == [("spec.training.loraRank", "16")]
    assert after["metadata"] == {
        "name": "job-lorarank-16",
        "namespace": "team",
        "labels": {"a": "b"},
        "annotations": {ANNOTATION: "job"},
    }
    assert "status" not in after
    assert before["spec"]["training"] == {"learningRate": 1e-4}


def test_the_result_of_the_earlier_job_is_not_overwritten() -> None:
    before = stored(output={"s3": {"uri": "s3://results/first"}})
    after = rerun(before, {"training.loraRank": 16})
    assert "output" not in after["spec"]
    assert left_out(before, after) == "spec.output is left out, so that the result of job is not overwritten"
    elsewhere = rerun(before, {"output.s3.uri": "s3://results/second"})
    assert elsewhere["spec"]["output"] == {"s3": {"uri": "s3://results/second"}}
    for document in (before, stored()):
        assert left_out(document, elsewhere) == ""


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({}, "job-again-1"),
        ({"spec.training.learningRate": 5e-5}, "job-learningrate-5e-05"),
        ({"training.loraRank": 16, "sampling.temperature": 0.7}, "job-lorarank-16-and-1"),
        ({"model.name": "Qwen/Qwen2.5-7B-Instruct"}, "job-name-new"),
        ({"model.name": "a/b"}, "job-name-new"),
        ({"model.name": "small-"}, "job-name-new"),
        ({"model.revision": "main"}, "job-revision-main"),
    ],
)
def test_the_new_job_is_named_after_the_change(values: dict[str, Any], name: str) -> None:
    made = rerun(stored(), values)
    assert made["metadata"]["name"] == name
    assert parse(made).metadata.name == name


def test_a_name_may_be_given() -> None:
    assert rerun(stored(), {}, "second")["metadata"]["name"] == "second"


def test_missing_sections_are_added_and_items_are_changed_in_place() -> None:
    made = rerun(stored(stop=None), {"stop.maxSteps": 5, "graders[0].weight": 2})
    assert made["spec"]["stop"] == {"maxSteps": 5}
    assert made["spec"]["graders"] == [{"name": "right", "numeric": {}, "weight": 2}]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("graders[3].weight", "there is no item 3; its items are 0 to 0"),
        ("graders[1]", "there is no item 1; its items are 0 to 0"),
        ("graders.weight", "lacks the index of a list item, 0 to 0"),
        ("sampling.stop[0]", "there is no item 0; the spec has no items at this path"),
        ("graders[].weight", "is not a field; write it like"),
        ("graders.http.url", "lacks the index of a list item, 0 to 0"),
        ("training[0]", "there is no item 0; the spec has no items at this path"),
        ("training[0].loraRank", "there is no item 0; the spec has no items at this path"),
    ],
)
def test_a_path_that_the_spec_does_not_have_is_named(path: str, said: str) -> None:
    with pytest.raises(NoSuchItem, match=said.replace("[", r"\[")):
        rerun(stored(), {path: 1})


def test_a_field_that_does_not_exist_names_the_one_that_was_meant() -> None:
    with pytest.raises(UnknownField, match=r"did you mean spec\.training\.loraRank"):
        rerun(stored(), {"training.lora_rank": 16})


@pytest.mark.parametrize("path", ["status.phase", "status", "status.progress.step"])
def test_a_field_of_the_status_cannot_be_set(path: str) -> None:
    with pytest.raises(UnknownField, match=f"no field {path}"):
        rerun(stored(), {path: 1})
