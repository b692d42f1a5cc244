"""Messages about invalid values describe the allowed form in words and give a corrected value."""

from collections.abc import Iterator
from typing import Any

import pytest

from rft_api import fields, foreign, meant
from rft_api.forms import FORMS
from rft_api.job import MAX_NAME_LENGTH, RFTJobSpec
from rft_api.loader import UnreadableManifest, load_documents
from rft_api.schema import structural
from rft_api.validation import check

SPEC: dict[str, Any] = {
    "model": {"name": "m"},
    "dataset": {"uri": "./train.jsonl"},
    "graders": [{"name": "right", "numeric": {}}],
    "storage": {"ephemeral": {}},
}


def job(name: str = "job", **fields: Any) -> dict[str, Any]:
    """Return a valid RFTJob in which ``fields`` replace fields of the spec."""
    return {
        "apiVersion": "rft.dev/v1alpha1",
        "kind": "RFTJob",
        "metadata": {"name": name},
        "spec": {**SPEC, **fields},
    }


def problem(document: dict[str, Any]) -> str:
    """Return the text of the only problem in a document."""
    (found,) = check(document).problems
    return str(found)


def _patterns(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(schema.get("pattern"), str):
            yield schema["pattern"]
        for value in schema.values():
            yield from _patterns(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _patterns(value)


def test_every_pattern_of_the_api_is_a_form_with_words() -> None:
    assert set(_patterns(structural(RFTJobSpec, defaults=True))) == set(FORMS)


@pytest.mark.parametrize(
    ("fields", "written"),
    [
        ({"dataset": {"uri": "train.jsonl"}}, "./train.jsonl"),
        ({"dataset": {"uri": "data/train.jsonl"}}, "./data/train.jsonl"),
        ({"dataset": {"uri": "S3://bucket/rows"}}, "s3://bucket/rows"),
        ({"dataset": {"uri": "https:/host/rows"}}, "https://host/rows"),
        ({"training": {"batchSizeTokens": "32k"}}, "32768"),
        ({"training": {"batchSizeTokens": "32_768"}}, "32_768"),
        ({"training": {"warmupSteps": "1,000"}}, "1000"),
        ({"sampling": {"topP": "90%"}}, "0.9"),
        ({"sampling": {"temperature": "0,7"}}, "0.7"),
        ({"suspend": "no"}, "false"),
        ({"suspend": "True"}, "true"),
        ({"model": "Qwen/Qwen2.5-7B"}, "{name: Qwen/Qwen2.5-7B}"),
        ({"dataset": "./rows.jsonl"}, "{uri: ./rows.jsonl}"),
        ({"dataset": {"configMap": "rows"}}, "{name: rows}"),
        ({"model": {"name": "m", "parameters": "7 billion"}}, "7B"),
        ({"model": {"name": "m", "parameters": "135000000"}}, "135M"),
        ({"storage": {"claimTemplate": {"size": "20 GB"}}}, "20Gi"),
        ({"storage": {"claimTemplate": {"size": "1,5Gi"}}}, "1.5Gi"),
        ({"resources": {"cpu": "4 cores"}}, "'4'"),
        ({"resources": {"memory": "16gb"}}, "16Gi"),
        ({"stop": {"deadline": "2027-01-31"}}, "2027-01-31T00:00:00Z"),
        ({"stop": {"deadline": "2027-01-31T18:00:00+02:00"}}, "2027-01-31T16:00:00Z"),
        ({"graders": [{"name": "My Grader", "numeric": {}}]}, "my-grader"),
        ({"graders": [{"name": "a", "python": {"inline": "x", "function": "grader.py:grade"}}]}, "grade"),
        ({"graders": [{"name": "a", "python": {"inline": "x", "function": "def score(a, b):"}}]}, "score"),
        (
            {"graders": [{"name": "a", "http": {"url": "localhost:8000/score"}}]},
            "http://localhost:8000/score",
        ),
        ({"graders": [{"name": "a", "http": {"url": "HTTPS://host/score"}}]}, "https://host/score"),
        ({"template": {"env": [{"name": "MY-VAR"}]}}, "MY_VAR"),
        ({"template": {"volumes": [{"name": "m", "mountPath": "data", "configMap": "c"}]}}, "/data"),
    ],
)
def test_a_value_is_answered_with_the_corrected_one_which_is_taken(
    fields: dict[str, Any], written: str
) -> None:
    said = problem(job(**fields))
    assert said.partition("; write ")[2].removesuffix(" without quotes") == written, said
    assert not any(pattern in said for pattern in FORMS), said


@pytest.mark.parametrize(
    "text", ["rows ", "~/rows.jsonl", "C:\\rows", "://", "", "é", "\n", "a\nb", "()", "٣"]
)
@pytest.mark.parametrize("pattern", FORMS)
def test_a_proposal_has_the_form_and_there_is_none_where_nothing_was_meant(pattern: str, text: str) -> None:
    form = FORMS[pattern]
    proposal = form.proposal(text)
    assert proposal == "" or form.has(proposal)


@pytest.mark.parametrize(
    ("name", "written"),
    [("My_GSM8K run", "my-gsm8k-run"), ("-a-", "a"), ("Füße", "fue"), ("a.b", "a-b"), ("x" * 60, "x" * 52)],
)
def test_a_job_s_name_is_corrected_and_not_longer_than_allowed(name: str, written: str) -> None:
    said = problem(job(name))
    assert said.endswith(f"; write {written}")
    assert len(written) <= MAX_NAME_LENGTH


def test_of_a_number_that_is_out_of_range_the_nearest_is_proposed() -> None:
    assert problem(job(training={"epochs": "32k"})).endswith("; write 10")


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("sampling.temp", "spec.sampling.temperature"),
        ("training.temp", "spec.sampling.temperature"),
        ("training.temperature", "spec.sampling.temperature"),
        ("sampling.temprature", "spec.sampling.temperature"),
        ("training.lr", "spec.training.learningRate"),
        ("training.num_train_epochs", "spec.training.epochs"),
        ("sampling.max_new_tokens", "spec.sampling.maxTokens"),
        ("sampling.numGenerations", "spec.sampling.numRollouts"),
        ("training.r", "spec.training.loraRank"),
        ("evaluation.temp", "spec.evaluation.temperature"),
    ],
)
def test_a_near_or_foreign_name_is_answered_with_ours(path: str, meant: str) -> None:
    where, _, name = path.partition(".")
    given: dict[str, Any] = {where: {name: 1}}
    assert problem(job(**given)).endswith(f"did you mean {meant}?")


def test_a_name_like_no_other_is_answered_with_the_fields_that_there_are() -> None:
    assert problem(job(stop={"zzzz": 1})).endswith(
        "the fields here are targetReward, patience, maxSteps, maxGpuHours, canary, deadline"
    )


def test_a_key_that_yaml_reads_as_false_is_explained() -> None:
    (document,) = load_documents("n: 4")
    said = problem(job(sampling=document.body))
    assert "spec.sampling.false: no such field; YAML reads the keys n, no and off without quotes" in said
    assert said.endswith("did you mean spec.sampling.numRollouts?")


def test_an_empty_spec_is_answered_with_what_it_needs() -> None:
    said = problem({**job(), "spec": None})
    assert said == (
        "spec: is empty (null); write its fields below it, indented further: model, dataset, graders, storage"
    )


def test_an_empty_object_that_needs_nothing_is_answered_with_braces() -> None:
    assert problem(job(storage={"ephemeral": None})) == (
        "spec.storage.ephemeral: is null; write {}, give it fields or remove the line"
    )


@pytest.mark.parametrize("field", ["apiVersion", "kind"])
@pytest.mark.parametrize("found", [None, "rft.dev/v1", "RftJob", 3])
def test_a_wrong_api_version_or_kind_is_answered_with_the_line_to_write(field: str, found: object) -> None:
    right = job()[field]
    document = {key: value for key, value in job().items() if key != field}
    said = problem(document if found is None else {**document, field: found})
    assert said.startswith(f"{field}: ")
    assert said.endswith(f"write {field}: {right}")


def test_beside_a_wrong_api_version_the_other_problems_are_reported_too() -> None:
    paths = [found.path for found in check({**job(epochs=1), "apiVersion": "v1"}).problems]
    assert paths == ["apiVersion", "spec.epochs"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('a: {pattern: "\\d+"}', "use single quotes, in which a backslash is an ordinary character: '\\d+'"),
        ('b: "x"\na: "it\'s \\d"', "line 2, column 11: in double quotes YAML reads \\d as an escape"),
        ('a: "it\'s \\d"', "'it''s \\d'"),
        ("a:\n\tb: 1", "line 2, column 1: the line is indented with a tab"),
        ("a: b: c", "put a text with a colon in quotes"),
        ("a: @x", "a text cannot begin with @ unless it is in quotes"),
        ("a: *x", "a text that begins with * is an alias"),
        ('a: "x\nb: 2', "a quote is opened and never closed; it begins in line 1"),
        ("a:\n  b: 1\n c: 2", "'c: 2' is not indented like the lines before it"),
        ("a: [1, 2\nb: 3", "a bracket is opened, but not closed before 'b: 3'; it begins in line 1"),
        ("- 1", "is a list, not a Kubernetes object"),
    ],
)
def test_a_text_that_is_no_yaml_is_answered_with_line_and_fix(text: str, said: str) -> None:
    with pytest.raises(UnreadableManifest) as raised:
        load_documents(text, "job.yaml")
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ({"n_epochs": 3}, "did you mean spec.training.epochs?"),
        ({"learning_rate_multiplier": 2}, "did you mean spec.training.learningRate?"),
        ({"response-candidates-count": 4}, "did you mean spec.sampling.numRollouts?"),
        ({"maxOutputTokens": 4}, "did you mean spec.sampling.maxTokens?"),
        ({"num_iterations": 1}, "did you mean spec.training.updatesPerBatch?"),
        ({"lr_scheduler_type": "cosine"}, "did you mean spec.training.schedule?"),
        ({"compute_multiplier": 2}, "did you mean spec.sampling.numRollouts?"),
        (
            {"reasoning_effort": "low"},
            "reasoning_effort of OpenAI has no counterpart in an RFTJob: the chat template",
        ),
        ({"chunkSize": 200}, "chunk-size of Fireworks has no counterpart in an RFTJob"),
        ({"gradient_accumulation_steps": 4}, "has no counterpart in an RFTJob: the plan chooses"),
        ({"warmup_ratio": 0.1}, "warmup_ratio of TRL has no counterpart in an RFTJob"),
    ],
)
def test_a_field_of_another_program_is_recognised(field: dict[str, object], said: str) -> None:
    found = check(job(training=field)).problems
    assert any(said in str(problem) for problem in found), found


def test_every_field_of_another_program_has_a_counterpart_that_exists_or_a_reason() -> None:
    entries = [entry for table in foreign.TABLES.values() for entry in table]
    assert [entry.theirs for entry in entries if not entry.ours and not entry.note] == []
    paths = {entry.ours for entry in entries if entry.ours.startswith("spec.")}
    assert [fields.find(path).path for path in sorted(paths)]
    for table in foreign.TABLES.values():
        names = [meant.fold(entry.theirs) for entry in table]
        assert len(names) == len(set(names))
