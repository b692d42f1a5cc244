"""Formulas of graders, templates that read rows, labels from judges, and scales that clip scores."""

import pytest

from rft_api.graders import Formula, Grader, Scale, StringCheck, TextSimilarity
from rft_api.job import RFTJobSpec
from rft_cli.local.grading import gold
from rft_cli.local.rows import RowLine
from rft_graders import ahead
from rft_graders.builtin import check_settings, string_check, text_similarity
from rft_graders.combine import combine, normalized
from rft_graders.formula import FormulaProblem, evaluate, formula_problem, names_in, with_formulas
from rft_graders.reply import parse_label
from rft_graders.similarity import bleu, gleu, rouge, rouge_longest
from rft_graders.template import NoValue, TemplateProblem, filled, parts, row_fields
from rft_run.errors import ConfigurationError
from tests import manifests

VALUES = {"a": 0.5, "b_c": 0.25}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("a", 0.5),
        ("2 * a - b_c", 0.75),
        ("-a + +1", 0.5),
        ("2 ^ 3 ^ 2", 512),
        ("-2 ^ 2", -4),
        ("(a + b_c) / 3", 0.25),
        ("min(a, b_c, 1) + max(a, b_c)", 0.75),
        ("abs(-a) + floor(1.9) + ceil(0.1)", 2.5),
        ("exp(0) + sqrt(b_c) + log(1)", 1.5),
    ],
)
def test_a_formula_is_arithmetic(expression: str, value: float) -> None:
    assert evaluate(expression, VALUES) == pytest.approx(value)


@pytest.mark.parametrize(
    "expression", ["1 / (a - 0.5)", "log(0)", "sqrt(-1)", "exp(10000)", "(0-a) ^ 0.5", "9 ^ 9 ^ 9"]
)
def test_a_formula_without_a_value_is_an_error_of_its_score(expression: str) -> None:
    with pytest.raises(ValueError, match="the formula has no value for these scores"):
        evaluate(expression, VALUES)


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("a +", "cannot be read"),
        ("a if a else 1", "is not allowed"),
        ("a.real", "is not allowed"),
        ("'x'", "is not allowed"),
        ("True", "is not allowed"),
        ("1e300", "is not allowed"),
        ("__import__('os')", "is not a function of formulas"),
        ("min(a)", "needs 2 or more values"),
        ("abs(a, a)", "needs 1 values"),
        ("-" * 200 + "a", "nested more than 50 levels deep"),
        ("(" * 500, "cannot be read"),
    ],
)
def test_nothing_but_arithmetic_is_taken(expression: str, said: str) -> None:
    with pytest.raises(FormulaProblem) as error:
        names_in(expression)
    assert said in str(error.value)


def graders(expression: str, **part: object) -> list[Grader]:
    return [
        Grader.model_validate({"name": "a-part", "weight": 0, "stringCheck": {}, **part}),
        Grader(name="reward", formula=Formula(expression=expression)),
    ]


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("a_part", ""),
        (
            "a_part + other",
            "other: a formula can name only graders that are listed before it; these are a_part",
        ),
        ("reward", "reward: a formula can name only graders that are listed before it"),
        ("1 + 1", "names no grader; name one of a_part"),
        ("a_part +", "cannot be read"),
    ],
)
def test_a_formula_names_graders_above_it(expression: str, said: str) -> None:
    found = formula_problem(graders(expression), 1)
    assert said in found if said else not found
    spec = RFTJobSpec.model_validate(manifests.manifest()["spec"])
    problems = ahead.problems(spec.model_copy(update={"graders": graders(expression)}), {})
    assert [each.path for each in problems] == (["spec.graders[1].formula.expression"] if said else [])


@pytest.mark.parametrize(
    ("part", "outcome", "reward"),
    [
        ({}, 0.5, 0.25),
        ({}, ValueError("broken"), 0.0),
        ({"onError": "drop"}, ValueError("broken"), None),
    ],
)
def test_a_failed_part_counts_as_its_error_policy_says(
    part: dict[str, object], outcome: float | ValueError, reward: float | None
) -> None:
    given = graders("a_part ^ 2", **part)
    found = combine(given, with_formulas(given, {"a-part": outcome}))
    assert found.reward == reward
    assert ("reward" in found.errors) == (reward is None)


def test_a_score_outside_of_a_scale_that_clips_is_its_nearest_end() -> None:
    scale = Scale(min=0, max=10, clip=True)
    assert [normalized(raw, scale) for raw in (-3, 5, 12)] == [0, 0.5, 1]
    with pytest.raises(ValueError, match="outside the grader's scale"):
        normalized(12, Scale(min=0, max=10))


ROW = {
    "answer": "x",
    "n": 1.0,
    "who": {"names": ["Ada", None]},
    "messages": [{"role": "user", "content": "Hi"}],
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{completion}|{prompt}|{answer}|{n}", '{"k": [7]}|Hi|x|1.0'),
        ("{who.names[0]} {{braces}}", "Ada {braces}"),
        ("{completion_json.k[0]} {completion_json}", '7 {"k": [7]}'),
        ("{who}", '{"names": ["Ada", null]}'),
    ],
)
def test_a_template_reads_parts_of_rows_and_completions(template: str, text: str) -> None:
    assert filled(template, '{"k": [7]}', ROW) == text


def test_a_part_that_is_absent_is_an_error_of_the_row_or_no_value_of_the_completion() -> None:
    for template in ("{who.names[1]}", "{who.names[9]}", "{who.age}", "{answer.x}", "{none}"):
        with pytest.raises(ValueError, match="the row has no field"):
            filled(template, "", ROW)
    for completion in ("no JSON", "{}", "[1]", '{"k": null}'):
        with pytest.raises(NoValue):
            filled("{completion_json.k}", completion, ROW)
    assert row_fields("{who.names[0]} {completion_json.k} {prompt} {n} {who}") == ["who", "n"]


@pytest.mark.parametrize("template", ["{a.}", "{a[x]}", "{}", "{a!r}", "{a:3}", "{a[0}", "{"])
def test_what_is_no_path_is_refused_before_the_run(template: str) -> None:
    with pytest.raises(TemplateProblem):
        parts(template)
    grader = Grader(name="g", string_check=StringCheck(reference=template))
    with pytest.raises(ConfigurationError, match=r"stringCheck\.reference"):
        check_settings(grader)
    spec = RFTJobSpec.model_validate(manifests.manifest()["spec"])
    found = ahead.problems(spec.model_copy(update={"graders": [grader]}), {})
    assert [each.path for each in found] == ["spec.graders[0].stringCheck.reference"]


def test_a_completion_without_the_part_scores_0_by_every_operation() -> None:
    for operation in ("equals", "notEquals", "contains"):
        check = StringCheck.model_validate({"operation": operation, "input": "{completion_json.k}"})
        assert string_check("no JSON", ROW, check) == 0
    assert text_similarity("no JSON", ROW, TextSimilarity(input="{completion_json.k}", reference="x")) == 0
    assert text_similarity("no JSON", ROW, TextSimilarity(reference="{completion_json.k}")) == 0


@pytest.mark.parametrize(
    ("reply", "label"),
    [
        ("good", "good"),
        (" **Good**. ", "good"),
        ('{"label": "bad"}', "bad"),
        ("<think>bad</think>good", "good"),
    ],
)
def test_a_judges_label_is_read(reply: str, label: str) -> None:
    assert parse_label(reply, ["good", "bad"]) == label


@pytest.mark.parametrize("reply", ["", "good or bad", "not good", '{"label": "fair"}'])
def test_any_other_answer_of_a_judge_is_an_error(reply: str) -> None:
    with pytest.raises(ValueError, match="none of the labels good, bad"):
        parse_label(reply, ["good", "bad"])


def test_measures_of_words_are_0_for_empty_texts_and_1_for_equal_ones() -> None:
    for measure in (bleu, gleu, rouge_longest, lambda first, second: rouge(first, second, 1)):
        assert measure("a b", "") == 0
        assert measure("", "a b") == 0
        assert measure("", "") == 0
        assert measure("one two three four five", "one two three four five") == pytest.approx(1)
    assert bleu("one two three four five six", "one two three four") == pytest.approx(0.6065, abs=1e-4)


@pytest.mark.parametrize(
    ("check", "completion"),
    [
        ({"reference": "It is {name}."}, "It is Ada."),
        ({"reference": "{name}", "operation": "contains"}, "Ada"),
        ({"reference": "{name}", "operation": "notEquals"}, "x"),
        ({"reference": "{name} {answer}"}, "x"),
        ({"reference": "{name}", "input": "{completion_json.name}"}, "x"),
    ],
)
def test_the_gold_answer_of_a_reference_with_one_field_is_its_text(
    check: dict[str, object], completion: str
) -> None:
    grader = Grader(name="g", string_check=StringCheck.model_validate(check))
    row = RowLine(1, [{"role": "user", "content": "Who?"}], {"name": "Ada", "answer": "x"})
    assert gold([row], [grader])[0].completion == completion
