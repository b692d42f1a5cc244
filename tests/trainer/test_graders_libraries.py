"""The graders math, jsonSchema and textSimilarity, with their real libraries in real workers."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from rft_api.graders import Grader
from rft_graders import json_schema, symbolic
from rft_graders.builtin import check_settings
from rft_graders.scorer import Scorer
from rft_graders.types import GradeItem, Score
from rft_run.errors import ConfigurationError


def grader(kind: str, settings: dict[str, Any], **more: object) -> Grader:
    return Grader.model_validate({"name": "g", kind: settings, **more})


def item(completion: str, **fields: object) -> GradeItem:
    return GradeItem([{"role": "user", "content": "question"}], completion, fields)


# --- math -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gold", "completion", "score"),
    [
        ("1/2", "so it is 0.5", 1.0),
        (r"\frac{1}{2}", r"\boxed{\frac{2}{4}}", 1.0),
        (r"$\frac{1}{2}$", r"first \boxed{3}, no: \boxed{\frac{1}{2}}", 1.0),
        (r"\boxed{\frac12}", "1/3", 0.0),
        (r"From \boxed{3} follows \boxed{7}.", "The final answer is 7, not 3.", 1.0),
        ("Half of 14 is $7$", "7", 1.0),
        (5, r"\boxed{5\text{ cm}}", 1.0),
        ("5", r"$x = 5$", 1.0),
        (1e-07, "0.0000001", 1.0),
        (r"\{1,2,3\}", r"$\{3,2,1\}$", 1.0),
        ("1,2,3", r"\boxed{3, 2, 1}", 1.0),
        (r"\{1,2,3\}", r"\boxed{1, 2}", 0.0),
        ("(1,2)", r"\boxed{(2,1)}", 0.0),
        ("(x+1)^2", "$x^2+2x+1$", 1.0),
        (r"\frac{\sqrt{2}}{2}", r"\boxed{\frac{1}{\sqrt 2}}", 1.0),
        (r"50\%", r"\boxed{0.5}", 1.0),
        (r"\$18.90", r"\boxed{18.9}", 1.0),
        (r"\$18.90", r"\boxed{\$18}", 0.0),
        (r"\$1,234", "it is 1234", 1.0),
        (r"0.\overline{3}", r"\boxed{\frac13}", 1.0),
        (r"0.\overline{3}", r"\boxed{0}", 0.0),
        (r"1.\overline{6}", r"\boxed{1}", 0.0),
        (r"\frac16", r"\boxed{0.1\overline{6}}", 1.0),
        (r"0.\dot{3}", r"\boxed{1/3}", 1.0),
        ("7", "I do not know", 0.0),
        ("7", "", 0.0),
        ("7", "(" * 5000, 0.0),
        ("7", "\\frac{" * 200, 0.0),
        ("7", "7" * 5000, 0.0),
        ("7", "\x00\ud7ff$$$}{", 0.0),
    ],
)
def test_math_compares_expressions_by_their_value(gold: object, completion: str, score: float) -> None:
    assert symbolic.equal(completion, {"answer": gold}, "answer") == score


@pytest.mark.parametrize("gold", [None, "", True, ["7"]])
def test_a_field_without_an_expression_is_an_error(gold: object) -> None:
    with pytest.raises(ValueError, match="field answer contains no expression"):
        symbolic.equal("7", {"answer": gold}, "answer")


def test_an_expression_that_never_ends_fails_only_its_own_score() -> None:
    towers = [r"\boxed{9^{9^{9^{9^9}}}}", "9**9**9**9"]
    with Scorer([grader("math", {}, timeoutSeconds=3)]) as scorer:
        first, *batch, last = scorer.score([item(text, answer=4) for text in ("4", *towers, "$2+2$")])
    assert [score.errors for score in batch] == [{"g": "no score within 3 s"}] * len(towers)
    assert first == last == Score(1.0, {"g": 1.0}, {})


# --- jsonSchema -----------------------------------------------------------------------------

PERSON = {
    "type": "object",
    "properties": {"name": {"$ref": "#/$defs/text"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
    "additionalProperties": False,
    "$defs": {"text": {"type": "string", "minLength": 1}},
}


@pytest.mark.parametrize(
    ("completion", "score"),
    [
        ('{"name": "Ada", "age": 36}', 1.0),
        ('\n {"name": "Ada"}\n', 1.0),
        ('```json\n{"name": "Ada"}\n```', 1.0),
        ('```\n{"name": "Ada"}\n```\n', 1.0),
        ('Sure! {"name": "Ada"}', 0.0),
        ('Sure!\n```json\n{"name": "Ada"}\n```', 0.0),
        ('```json\n{"name": "Ada"}\n```\n```json\n{"name": "Ada"}\n```', 0.0),
        ('```python\n{"name": "Ada"}\n```', 0.0),
        ('{"name": ""}', 0.0),
        ('{"name": "Ada", "age": -1}', 0.0),
        ('{"name": "Ada", "age": NaN}', 0.0),
        ('{"name": "Ada", "x": 1}', 0.0),
        ('{"name": "Ada"', 0.0),
        ("[" * 100_000, 0.0),
        ("", 0.0),
    ],
)
def test_a_completion_must_be_json_as_a_whole_or_in_one_fenced_block(completion: str, score: float) -> None:
    assert json_schema.valid(completion, json_schema.validator(json.dumps(PERSON))) == score


def test_a_schema_is_read_by_the_draft_that_it_names() -> None:
    pair = {"items": [{"type": "integer"}]}  # a tuple until draft 2019-09; later drafts refuse it
    older = {"$schema": "http://json-schema.org/draft-07/schema#", **pair}
    assert json_schema.valid('["x"]', json_schema.validator(json.dumps(older))) == 0.0
    with pytest.raises(json_schema.SchemaProblem, match="/items"):
        json_schema.validator(json.dumps(pair))


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ("{nonsense", "not JSON"),
        ("[]", "a JSON object or a boolean, not list"),
        ('{"properties": {"a": {"type": "strin"}}}', "/properties/a/type: 'strin' is not valid"),
        ('{"pattern": "("}', r"/pattern: '\(' is not a 'regex'"),
        ('{"$schema": "https://example.com/own"}', "not a known draft"),
        ('{"$ref": "https://example.com/schema.json"}', r"\$ref https://example.com/schema.json is not in"),
        ('{"items": {"$ref": "file:///etc/passwd"}}', "no other document is read: copy it to"),
        ('{"$ref": "#/$defs/absent"}', r"#/\$defs/absent is not in the schema"),
        ('{"not":' * 5000 + "{}" + "}" * 5000, "nested too deeply|not JSON"),
    ],
)
def test_an_invalid_schema_is_refused_before_the_run(schema: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^grader g: jsonSchema.schema: .*{problem}"):
        check_settings(grader("jsonSchema", {"schema": schema}))


@pytest.mark.parametrize(
    "schema",
    [
        {"$id": "https://a.example/a", "$defs": {"b": {"$id": "b", "type": "null"}}, "items": {"$ref": "b"}},
        {"$ref": "https://json-schema.org/draft/2020-12/schema"},
        {"const": {"$ref": "https://example.com/only-data"}},
        {"properties": {"$ref": {"type": "string"}}},
    ],
)
def test_references_within_the_schema_and_to_the_drafts_are_allowed(schema: dict[str, Any]) -> None:
    check_settings(grader("jsonSchema", {"schema": json.dumps(schema)}))


def test_a_schema_pattern_that_backtracks_endlessly_fails_only_one_score() -> None:
    schema = json.dumps({"type": "string", "pattern": "^(a+)+$"})
    with Scorer([grader("jsonSchema", {"schema": schema}, timeoutSeconds=1)]) as scorer:
        bad, good, none = scorer.score([item(json.dumps(text)) for text in ("a" * 40 + "!", "aaa", "b")])
    assert bad.errors == {"g": "no score within 1 s"}
    assert (good, none.reward) == (Score(1.0, {"g": 1.0}, {}), 0.0)


# --- textSimilarity -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def metrics() -> Iterator[Scorer]:
    names = {"levenshtein": "edits", "jaroWinkler": "names", "tokenSet": "words"}
    graders = [
        Grader.model_validate({"name": name, "textSimilarity": {"metric": metric}})
        for metric, name in names.items()
    ]
    with Scorer(graders) as scorer:
        yield scorer


@pytest.mark.parametrize(
    ("completion", "reference", "expected"),
    [
        # Levenshtein: 3 edits in 7 characters. Jaro: 4 of 6 and 4 of 7 letters match. No common prefix.
        ("sitting", "kitten", {"edits": 4 / 7, "names": 0.746, "words": 0.615}),
        # The published example of the metric: Jaro 0.944, and three letters of common prefix.
        ("MARTHA", "MARHTA", {"edits": 4 / 6, "names": 0.961, "words": 0.833}),
        ("the cat sat", "sat the cat", {"words": 1.0}),
        ("same", "same", {"edits": 1.0, "names": 1.0, "words": 1.0}),
        ("", "something", {"edits": 0.0, "names": 0.0, "words": 0.0}),
        ("42", 42, {"edits": 1.0}),
    ],
)
def test_similarity_is_between_0_and_1(
    metrics: Scorer, completion: str, reference: object, expected: dict[str, float]
) -> None:
    scores = metrics.score([item(completion, answer=reference)])[0].per_grader
    assert {name: scores[name] for name in expected} == pytest.approx(expected, abs=1e-3)


def test_similarity_without_a_text_in_the_row_is_an_error(metrics: Scorer) -> None:
    assert metrics.score([item("x")])[0].errors["edits"] == "field answer contains no text"
