"""rft import reads any value in a file: the value is carried over, noted or refused in one sentence.

Each value of the example files in ``imports/`` is replaced by values of other types, one at a time.
"""

import ast
import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from rft_cli.importing import reading
from rft_cli.importing.result import Deviation, ImportProblem, Options

IMPORTS = Path(__file__).parent / "imports"
OPTIONS = Options("Qwen/Qwen2.5-7B-Instruct", evaluator=str(IMPORTS / "evaluator.py"))
ODD: list[Any] = [
    None,
    True,
    -5,
    10**400,
    "x",
    "",
    [],
    ["a"],
    [1, "a"],
    {},
    {"a": 1},
    [None],
    float("nan"),
    float("inf"),
]


def replaced(body: Any, odd: Any) -> Iterator[Any]:
    """Yield copies of a JSON value. In each copy, one value at any depth is replaced by ``odd``."""
    for key, value in body.items() if isinstance(body, dict) else enumerate(body):
        copy = deepcopy(body)
        copy[key] = odd
        yield copy
        if isinstance(value, dict | list):
            for inner in replaced(value, odd):
                copy = deepcopy(body)
                copy[key] = inner
                yield copy


def read_all(texts: Iterator[str]) -> int:
    """Import each text. Return the number of texts. Only ImportProblem may be raised."""
    count = 0
    for text in texts:
        count += 1
        try:
            draft = reading.read(text, OPTIONS)
            reading.problems(draft)
            reading.summary(draft)
        except ImportProblem:
            pass
        except Exception as error:
            raise AssertionError(text) from error
    return count


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: repr(odd)[:20])
@pytest.mark.parametrize("name", ["openai-job.json", "fireworks-job.json"])
def test_a_job_with_any_value_is_read_or_refused(name: str, odd: Any) -> None:
    body = json.loads((IMPORTS / name).read_text())
    assert read_all(json.dumps(each) for each in replaced(body, odd)) > 15


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: repr(odd)[:20])
def test_a_script_with_any_value_is_read_or_refused(odd: Any) -> None:
    def scripts() -> Iterator[str]:
        source = (IMPORTS / "trl_script.py.txt").read_text()
        calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
        for i, call in enumerate(calls):
            for j in range(len(call.keywords)):
                tree = ast.parse(source)
                chosen = [node for node in ast.walk(tree) if isinstance(node, ast.Call)][i]
                value = f"float('{odd}')" if isinstance(odd, float) else repr(odd)
                chosen.keywords[j].value = ast.parse(value, mode="eval").body
                yield ast.unparse(tree)

    assert read_all(scripts()) > 15


@pytest.mark.parametrize(
    ("value", "text"), [("", "model: left out"), ("gpt", "model: gpt: left out"), (0, "model: 0: left out")]
)
def test_a_note_on_an_empty_value_does_not_show_it(value: object, text: str) -> None:
    assert str(Deviation("model", value, "left out")) == text
