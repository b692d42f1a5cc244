"""Grading without processes: numbers found in a text, built-in graders, scales, the weighted mean."""

import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rft_api.graders import ExactMatch, Grader, Numeric, Regex, Scale
from rft_graders.builtin import check_settings, exact_match, numeric
from rft_graders.combine import combine, normalized
from rft_graders.numbers import find_numbers
from rft_graders.types import Score, ScoredBatch
from rft_run.errors import ConfigurationError, UserCodeError
from tests.speed import assert_linear


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("The answer is 42.", ["42"]),
        ("3 - 5", ["3", "5"]),
        ("10-5", ["10", "5"]),
        ("x = -5", ["-5"]),
        ("(−7)", ["-7"]),
        ("-$1,234.50!", ["-1234.50"]),
        ("1,234,567", ["1234567"]),
        ("1,23", ["1", "23"]),
        ("1, 2, 3", ["1", "2", "3"]),
        ("It is 1/2.", ["0.5"]),
        (r"\frac{1}{2} or -\dfrac{3}{4}", ["0.5", "-0.75"]),
        (".5 and 1e3", ["0.5", "1E+3"]),
        ("50% of x2", ["0.5"]),
        ("3/0", []),
        ("1e999999999", ["1"]),
        ("none", []),
    ],
)
def test_numbers_are_found_in_the_usual_formats(text: str, numbers: list[str]) -> None:
    assert find_numbers(text) == [Decimal(number) for number in numbers]


@given(st.text(alphabet="0123456789,.-+/eE$ \\frac{}x%^½是\u2009", max_size=200))
def test_finding_numbers_never_fails(text: str) -> None:
    assert all(number.is_finite() for number in find_numbers(text))


@pytest.mark.parametrize(
    "piece", ["1,", "1,234", "-", "1/", "9", "\\frac{1}", "1e", "$ ", "1 ", "1 000 ", "1%", "是1", "1½"]
)
def test_finding_numbers_takes_linear_time(piece: str) -> None:
    assert_linear(lambda size: find_numbers(piece * (size // len(piece))), 3_000)


@pytest.mark.parametrize(
    ("completion", "settings", "score"),
    [
        ("first 3, then 4", {"extract": "last"}, 1.0),
        ("first 4, then 3", {"extract": "first"}, 1.0),
        (r"so \boxed{\frac{8}{2}} is it, not 7", {"extract": "boxed"}, 1.0),
        ("4", {"extract": "boxed"}, 0.0),
        (r"\boxed{4", {"extract": "boxed"}, 0.0),
        ("#### 1 #### 4 apples of 9", {"extract": "marker", "marker": "####"}, 1.0),
        ("4", {"extract": "marker", "marker": "####"}, 0.0),
        ("4.01", {}, 0.0),
        ("4.01", {"tolerance": 0.01}, 1.0),
        ("no number", {}, 0.0),
    ],
)
def test_numeric_compares_the_selected_number(
    completion: str, settings: dict[str, Any], score: float
) -> None:
    assert numeric(completion, {"answer": 4}, Numeric(**settings)) == score


@pytest.mark.parametrize("field", ["1,000", 1000, 1000.0, "Half of 2000 is\n#### 1000"])
def test_numeric_extracts_a_number_from_the_field_as_from_completions(field: object) -> None:
    assert numeric("It is 1000", {"answer": field}, Numeric()) == 1.0


def test_numeric_distinguishes_large_integers() -> None:
    assert numeric("9007199254740993", {"answer": 9007199254740992}, Numeric()) == 0.0


def test_numeric_without_a_number_in_the_row_is_an_error() -> None:
    with pytest.raises(ValueError, match="contains no number"):
        numeric("4", {"answer": "four"}, Numeric())


@pytest.mark.parametrize(
    ("completion", "expected", "settings", "score"),
    [
        (" Paris\n", "Paris", {}, 1.0),
        (" Paris", "Paris", {"strip": False}, 0.0),
        ("paris", "PARIS", {"ignore_case": True}, 1.0),
        ("paris", "Paris", {}, 0.0),
        ("7", 7, {}, 1.0),
        ("true", True, {}, 1.0),
    ],
)
def test_exact_match_compares_texts(
    completion: str, expected: object, settings: dict[str, Any], score: float
) -> None:
    assert exact_match(completion, {"answer": expected}, ExactMatch(**settings)) == score


def test_exact_match_without_a_field_is_an_error() -> None:
    with pytest.raises(ValueError, match="field answer contains no text"):
        exact_match("x", {}, ExactMatch())


@pytest.mark.parametrize(
    ("grader", "problem"),
    [
        (Grader(name="g", exact_match=ExactMatch(), scale=Scale(min=1, max=1)), "scale.min is not below"),
        (Grader(name="g", regex=Regex(pattern="(")), "regex does not compile"),
    ],
)
def test_invalid_grader_settings_are_refused_before_the_run(grader: Grader, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        check_settings(grader)


@pytest.mark.parametrize(
    ("raw", "scale", "score"),
    [
        (True, None, 1.0),
        (0.25, None, 0.25),
        (1.0000000000000002, None, 1.0),
        (0, Scale(min=-1, max=1), 0.5),
        (10, Scale(min=0, max=10), 1.0),
    ],
)
def test_a_raw_score_is_mapped_onto_0_to_1(raw: object, scale: Scale | None, score: float) -> None:
    assert normalized(raw, scale) == score


@pytest.mark.parametrize("raw", [1.1, -0.1, math.nan, math.inf, 10**400, "1", None, [1]])
def test_a_value_that_is_not_a_score_raises(raw: object) -> None:
    with pytest.raises(ValueError, match="the score"):
        normalized(raw, None)


def graders(on_error: Any = None) -> list[Grader]:
    return [
        Grader(name="a", weight=3, exact_match=ExactMatch()),
        Grader(name="b", weight=1, exact_match=ExactMatch(), **({"on_error": on_error} if on_error else {})),
    ]


def test_the_reward_is_the_weighted_mean() -> None:
    assert combine(graders(), {"a": 1.0, "b": 0.5}) == Score(0.875, {"a": 1.0, "b": 0.5}, {})


def test_an_error_scores_zero_by_default() -> None:
    score = combine(graders(), {"a": 1.0, "b": ValueError("broken")})
    assert score == Score(0.75, {"a": 1.0, "b": 0.0}, {"b": "broken"})


def test_with_on_error_drop_an_error_drops_the_rollout() -> None:
    score = combine(graders("drop"), {"a": 1.0, "b": ValueError("broken")})
    assert score == Score(None, {"a": 1.0}, {"b": "broken"})


def test_with_on_error_fail_an_error_fails_the_run() -> None:
    with pytest.raises(UserCodeError, match="grader b failed and its onError is fail: broken"):
        combine(graders("fail"), {"a": 1.0, "b": ValueError("broken")})


@pytest.mark.parametrize("on_error", [None, "drop", "fail"])
def test_a_canary_is_scored_and_neither_its_score_nor_its_error_touches_the_reward(on_error: Any) -> None:
    settings = {"on_error": on_error} if on_error else {}
    watched = [*graders(), Grader(name="canary", weight=0, exact_match=ExactMatch(), **settings)]
    right = {"a": 1.0, "b": 0.5}
    scored = combine(watched, {**right, "canary": 0.0})
    assert (scored.reward, scored.per_grader) == (0.875, {**right, "canary": 0.0})
    failed = combine(watched, {**right, "canary": ValueError("away")})
    assert (failed.reward, failed.per_grader, failed.errors) == (0.875, right, {"canary": "away"})
    batch = ScoredBatch([failed, failed])
    assert not batch.mostly_errors
    assert (batch.error_counts, batch.first_errors, batch.canary_error_counts) == ({}, {}, {"canary": 2})


def test_a_batch_has_counts_of_errors_and_means_of_scores() -> None:
    bad = Score(None, {"a": 1.0}, {"b": "broken"})
    batch = ScoredBatch([bad, bad, Score(0.5, {"a": 0.5, "b": 0.5})])
    assert batch.error_ratio == pytest.approx(2 / 3)
    assert batch.mostly_errors
    assert batch.error_counts == {"b": 2}
    assert batch.first_errors == {"b": "broken"}
    assert batch.grader_means == pytest.approx({"a": 2.5 / 3, "b": 0.5})
    assert not ScoredBatch().mostly_errors
