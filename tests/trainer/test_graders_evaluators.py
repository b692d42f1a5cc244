"""Users can use their existing evaluators as graders, without changes.

The tests have evaluators with different arguments, results, imports and output. test_evaluators_run runs some
evaluators with the command ``rft run``.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rft_api.graders import ConfigMapCode, Grader, Python
from rft_graders.printed import MAX_PRINTED_BYTES
from rft_graders.scorer import Scorer
from rft_graders.shapes import Asked, adapted, number
from rft_graders.types import GradeItem, Score
from rft_run.errors import UserCodeError
from tests.trainer import evaluators

QUESTION = {"role": "user", "content": "What is 6 x 7?"}


def grader(source: str, function: str = "grade", **settings: object) -> Grader:
    python = {"inline": source, "function": function}
    return Grader.model_validate({"name": "user", "timeoutSeconds": 5, "python": python, **settings})


def item(completion: str, **fields: object) -> GradeItem:
    return GradeItem([QUESTION], completion, fields, token_ids=(1, 2, 3))


def scored(source: str, *items: GradeItem, function: str = "grade") -> list[Score]:
    with Scorer([grader(source, function)]) as scorer:
        return scorer.score(items)


# --- the shapes that are published ----------------------------------------------------------

ROW: dict[str, Any] = {
    "answer": "42",
    "ground_truth": "42",
    "level": "easy",
    "data_source": "arithmetic",
    "extra_info": {"index": 7},
}


@pytest.mark.parametrize(
    ("source", "function"),
    [
        (evaluators.TRL, "format_reward"),
        (evaluators.TRL_COLUMNS, "length_reward"),
        (evaluators.TRL_TEXTS, "text_reward"),
        (evaluators.TRL_ASYNC, "async_reward"),
        (evaluators.TRL_OBJECT, "scaled"),
        (evaluators.TRL_TOKENS, "overlong_reward"),
        (evaluators.OPENAI, "grade"),
        (evaluators.EVAL_PROTOCOL, "evaluate"),
        (evaluators.VERL, "compute_score"),
        (evaluators.VERL_OPTIONS, "compute_score"),
        (evaluators.VERL_TEXT, "compute_score"),
        (evaluators.VERL_BATCH, "compute_score_batched"),
    ],
)
def test_an_evaluator_of_a_published_shape_runs_unchanged(source: str, function: str) -> None:
    right, wrong = scored(source, item("It is 42", **ROW), item("It is 41", **ROW), function=function)
    assert (right, wrong) == (Score(1.0, {"user": 1.0}, {}), Score(0.0, {"user": 0.0}, {}))


def test_verls_ground_truth_may_be_where_its_rows_have_it() -> None:
    row = {"data_source": "a", "reward_model": {"style": "rule", "ground_truth": "42"}}
    source = """
def compute_score(data_source, solution_str, ground_truth, extra_info):
    return ground_truth == "42"
"""
    assert scored(source, item("x", **row), function="compute_score")[0].reward == 1.0


@pytest.mark.parametrize(
    ("source", "missing"),
    [
        (evaluators.VERL_OPTIONS, "ground_truth, which is a parameter of compute_score"),
        (
            "def compute_score(completions, solution): return [1.0]",
            "solution, which is a parameter of compute_score",
        ),
        ("def compute_score(messages, judge): return 1.0", "judge, which is a parameter of compute_score"),
    ],
)
def test_a_field_that_an_evaluator_takes_and_the_row_lacks_is_named(source: str, missing: str) -> None:
    (score,) = scored(source, item("x"), function="compute_score")
    assert f"the row has no field {missing}" in score.errors["user"]


# --- how a function is called ---------------------------------------------------------------


def call(function: Callable[..., object], **row: object) -> float:
    return adapted(function)(Asked("said", {"messages": [QUESTION], **row}, [1]))


@pytest.mark.parametrize(
    "function",
    [
        lambda completion, row: completion == "said" and row["messages"] == [QUESTION],
        lambda row, completion: completion == "said" and row["messages"] == [QUESTION],
        lambda text, fields: text == "said" and fields["messages"] == [QUESTION],
        lambda completion, row=None: row is not None,
        lambda completion, row, strict=True, *, more=True: strict is True and more is True,
        lambda completion, strict=True: completion == "said" and strict is True,
        lambda completion: completion == "said",
        lambda row, strict=True: row["messages"][-1]["content"] == "said" and strict is True,
        lambda item, sample: sample["output_text"] == "said" and item["messages"] == [QUESTION],
        lambda sample, item, strict=True: strict is True,
        lambda *both: both[0] == "said" and both[1]["messages"] == [QUESTION],
        lambda *args, **kwargs: len(args) == 2 and not kwargs,
        lambda completions, strict=True, **fields: [strict is True and "prompts" in fields],
        lambda messages, strict=True: strict is True,
        lambda solution_str, **kwargs: kwargs == {"extra_info": {}},
    ],
)
def test_options_with_defaults_keep_them_and_names_decide_over_order(function: Callable[..., object]) -> None:
    assert call(function) == 1.0


@pytest.mark.parametrize(
    "function",
    [
        lambda completion, answer: completion == "said" and answer == 42,
        lambda answer, completion: completion == "said" and answer == 42,
        lambda response, answer: response == "said" and answer == 42,
        lambda completion, answer, unit: (completion, answer, unit) == ("said", 42, "cm"),
        lambda completion, *, unit, answer=1: (completion, answer, unit) == ("said", 1, "cm"),
        lambda unit, solution_str, answer: (solution_str, answer, unit) == ("said", 42, "cm"),
        lambda completion, row, answer: row["unit"] == "cm" and answer == 42,
        lambda text, other: text == "said" and other["answer"] == 42,
    ],
)
def test_a_parameter_with_the_name_of_a_field_gets_the_field(function: Callable[..., object]) -> None:
    assert call(function, answer=42, unit="cm") == 1.0


@pytest.mark.parametrize(
    "function",
    [
        lambda completion, answer, unit: 1,
        lambda unit, completion: 1,
        lambda completion, *, unit: 1,
    ],
)
def test_a_row_without_the_field_of_a_parameter_is_an_error(function: Callable[..., object]) -> None:
    with pytest.raises(LookupError, match="the row has no field unit, which is a parameter of grade"):
        call(function, answer=42)


def test_a_row_that_lacks_the_field_is_not_given_in_its_place() -> None:
    grade = adapted(lambda completion, answer: answer == 42 or "messages" in answer)
    assert grade(Asked("said", {"messages": []})) == 1.0
    assert grade(Asked("said", {"messages": [], "answer": 42})) == 1.0
    with pytest.raises(LookupError, match="no field answer"):
        grade(Asked("said", {"messages": []}))


def test_parameters_that_are_taken_by_position_alone_are_filled() -> None:
    def grade(messages: list[dict[str, str]], /, **fields: object) -> bool:
        return messages[-1]["content"] == "said" and fields["answer"] == 42

    assert call(grade, answer=42) == 1.0


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (lambda: 1, "grade()"),
        (lambda text: 1, "grade(text)"),
        (lambda row, answer: 1, "grade(row, answer)"),
        (lambda sample, item, judge: 1, "grade(sample, item, judge)"),
        (lambda text, strict=True: 1, "grade(text, strict)"),
        (lambda prompts, a, b: 1, "grade(prompts, a, b)"),
    ],
)
def test_a_function_that_cannot_be_called_is_refused_with_what_is_taken(
    function: Callable[..., object], parameters: str
) -> None:
    with pytest.raises(TypeError) as refused:
        adapted(function)
    said = str(refused.value)
    assert said.startswith(f"{parameters} cannot be called as a grader")
    for taken in ("(completion, row)", "(sample, item)", "(messages, …)", "solution_str"):
        assert taken in said


def test_a_source_without_the_function_names_those_that_it_has() -> None:
    source = "import math\ndef evaluate(row): return 1\ndef _helper(): pass\ngrade = 3"
    with Scorer([grader(source)]) as scorer, pytest.raises(UserCodeError, match="grade is a int"):
        scorer.ready()
    with Scorer([grader(source, "score")]) as scorer, pytest.raises(UserCodeError) as refused:
        scorer.ready()
    assert str(refused.value).endswith(
        "no function score; it defines evaluate: set python.function to one of them"
    )


# --- what it returns ------------------------------------------------------------------------


class Scored:
    def __init__(self, score: object, **more: object) -> None:
        self.score = score
        self.__dict__.update(more)


class Array:
    """A fake array of numpy or torch: ``tolist()`` returns the content as a list or a number."""

    def __init__(self, value: object) -> None:
        self._value = value

    def tolist(self) -> object:
        return self._value


@pytest.mark.parametrize(
    "result",
    [
        0.5,
        {"score": 0.5, "reason": "so"},
        Scored(0.5),
        Scored(Array(0.5), is_score_valid=True),
        [0.5],
        (0.5,),
        [{"score": 0.5}],
        [Scored(0.5)],
        {"score": [0.5]},
        Array(0.5),
        Array([0.5]),
        Array([[0.5]]),
    ],
)
def test_a_score_is_found_in_the_usual_results(result: object) -> None:
    assert number(result) == 0.5


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        ([0.5, 1], "a list of 2"),
        ((0.5, "because"), "a tuple of 2"),
        ([], "a list of 0"),
        (Array([0.5, 1]), "a list of 2"),
        ("0.5", "a str"),
        (["0.5"], "a str"),
        (None, "a NoneType"),
        ({"reward": 1}, "without the key score"),
        (Scored(None), "a NoneType"),
        (1j, "a complex"),
        (Scored(0.5, is_score_valid=False, reason="the judge was away"), "not valid: the judge was away"),
        ({"score": 0.5, "is_score_valid": False}, "not valid"),
        ((one for one in [1.0]), "a generator"),
        (math.nan, "returned nan"),
        (Array([math.inf]), "returned inf"),
    ],
)
def test_a_result_without_one_score_says_what_it_is(result: object, problem: str) -> None:
    with pytest.raises((TypeError, ValueError), match=problem):
        number(result)


def test_arrays_and_scalars_of_numpy_are_scores() -> None:
    source = """
import numpy
def grade(completion, row):
    results = {"a": numpy.float16(0.5), "b": numpy.array(0.5), "c": numpy.array([[0.5]]), "d": numpy.True_}
    return results[completion]
"""
    assert [score.reward for score in scored(source, *map(item, "abcd"))] == [0.5, 0.5, 0.5, 1.0]


def test_arrays_and_scalars_of_torch_are_scores() -> None:
    import torch

    for value in (torch.tensor(0.5), torch.tensor([0.5]), torch.tensor([[0.5]], dtype=torch.bfloat16)):
        assert number(value) == 0.5


def test_an_async_grader_keeps_one_event_loop() -> None:
    source = """
import asyncio
loops = set()
async def grade(completion, row, strict=True):
    await asyncio.sleep(0)
    loops.add(asyncio.get_running_loop())
    return completion == "x" and len(loops) == 1
"""
    assert [score.reward for score in scored(source, *[item("x")] * 4)] == [1.0] * 4


def test_an_async_grader_that_never_ends_fails_only_its_own_score() -> None:
    source = """
import asyncio
async def grade(completion, row):
    await asyncio.sleep(0 if completion == "x" else 60)
    return 1
"""
    with Scorer([grader(source, timeoutSeconds=1)]) as scorer:
        bad, good = scorer.score([item("y"), item("x")])
    assert bad.errors == {"user": "no score within 1 s"}
    assert good.reward == 1.0


# --- what its source may be -----------------------------------------------------------------

DATACLASSES = """
from __future__ import annotations
from dataclasses import dataclass, field
from typing import NamedTuple
import pydantic

@dataclass
class Part:
    weight: float
    seen: list[Part] = field(default_factory=list)

class Result(pydantic.BaseModel):
    score: float
    nested: list[Result] = []

class Pair(NamedTuple):
    score: float
    why: str

def grade(completion, row):
    Result(score=1, nested=[Result(score=0)])
    return Pair(Part(0.5).weight, "so") if completion == "pair" else Result(score=0.25)
"""


def test_a_source_may_define_dataclasses_and_pydantic_models() -> None:
    assert [s.reward for s in scored(DATACLASSES, item("pair"), item("model"))] == [0.5, 0.25]


def from_files(folder: Path, key: str, **files: str | bytes) -> list[Score]:
    for name, text in files.items():
        path = folder / name.replace("__dot__", ".")
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    code = Grader(name="user", python=Python(config_map=ConfigMapCode(name="code", key=key)))
    with Scorer([code], grader_code={"user": str(folder / key)}) as scorer:
        return scorer.score([item("It is 42", answer="42")])


@pytest.mark.parametrize(
    "source",
    [
        b"\xef\xbb\xbfdef grade(completion, row): return 1",
        b"# coding: latin-1\r\ndef grade(completion, row): return '\xe4' == chr(228)\r\n",
        b"\xef\xbb\xbf# -*- coding: utf-8 -*-\ndef grade(completion, row): return '\xc3\xa4' == chr(228)",
    ],
)
def test_a_file_is_read_by_its_own_encoding(tmp_path: Path, source: bytes) -> None:
    assert from_files(tmp_path, "grader.py", grader__dot__py=source)[0].reward == 1.0


def test_an_inline_source_may_begin_with_a_bom() -> None:
    assert scored("\ufeffdef grade(completion, row): return 1", item("x"))[0].reward == 1.0


def test_a_file_that_is_no_text_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(UserCodeError, match="the source cannot be read: invalid or missing encoding"):
        from_files(tmp_path, "grader.py", grader__dot__py="def grade(c, r): return 1".encode("utf-16"))


HELPED = """
from pathlib import Path
{imports}

def grade(completion, row):
    words = Path(__file__).with_name("words.txt").read_text().split()
    return last(completion) == row["answer"] and words == ["forty", "two"]
"""


@pytest.mark.parametrize(
    ("imports", "key", "init"),
    [
        ("from parsing import last", "grader.py", None),
        ("from .parsing import last", "grader.py", None),
        ("from . import parsing\nlast = parsing.last", "my-evaluator.py", "raise_later = 1\n"),
        (
            "from . import DEFAULT\nfrom .parsing import last\nassert DEFAULT == 1",
            "evaluate.py",
            "DEFAULT = 1",
        ),
        # An installed package is not hidden by the file that imports it, whatever the file's name is.
        ("import json, pydantic\nassert pydantic.BaseModel\nfrom parsing import last", "pydantic.py", None),
    ],
)
def test_a_grader_can_import_and_read_the_files_beside_it(
    tmp_path: Path, imports: str, key: str, init: str | None
) -> None:
    files: dict[str, str | bytes] = {
        key: HELPED.format(imports=imports),
        "parsing.py": "from dataclasses import dataclass\n@dataclass\nclass Found:\n    text: str\n"
        "def last(text): return Found(text.split()[-1]).text",
        "words.txt": "forty two",
        **({"__init__.py": init} if init is not None else {}),
    }
    assert from_files(tmp_path, key, **files) == [Score(1.0, {"user": 1.0}, {})]
    assert not (tmp_path / "__pycache__").exists()


# --- what it prints -------------------------------------------------------------------------

PRINTING = """
import logging, os, subprocess, sys

def grade(completion, row):
    if completion == "much":
        print("ä" * 10000)
    elif completion == "crash":
        print("just before")
        os._exit(3)
    elif completion == "hang":
        print("going on")
        while True: pass
    elif completion == "everywhere":
        print("out")
        print("err", file=sys.stderr)
        logging.warning("logged")
        subprocess.run(["echo", "child"])
    elif completion == "surrogate":
        print("\\ud800")
    return 1
"""


def test_what_is_printed_is_kept_for_its_own_rollout() -> None:
    with Scorer(
        [grader(PRINTING, timeoutSeconds=1), grader("def grade(c, r): return 1", name="quiet")]
    ) as scorer:
        batch = scorer.score(
            [item(text) for text in ("everywhere", "quiet", "surrogate", "crash", "hang", "quiet")]
        )
    everywhere, quiet, surrogate, crash, hang, last = (score.printed for score in batch)
    assert everywhere == {"user": "out\nerr\nWARNING:root:logged\nchild\n"}
    assert quiet == last == {}
    assert surrogate == {"user": "\\ud800\n"}
    assert crash == {"user": "just before\n"}
    assert hang == {"user": "going on\n"}


def test_what_is_printed_beyond_the_limit_is_counted() -> None:
    (score,) = scored(PRINTING, item("much"))
    kept, said = score.printed["user"].split("\n")
    assert kept == "ä" * (MAX_PRINTED_BYTES // 2)
    assert said == (
        f"… {20001 - MAX_PRINTED_BYTES} more bytes were printed and are not kept;"
        f" the limit is {MAX_PRINTED_BYTES}"
    )


def test_what_is_printed_while_loading_belongs_to_no_rollout(capfd: pytest.CaptureFixture[str]) -> None:
    (score,) = scored("print('hello')\ndef grade(c, r): return 1", item("x"))
    assert score.printed == {}
    assert "grader user printed while it was loaded: hello" in capfd.readouterr().err
