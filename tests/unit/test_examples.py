"""The code of each example does what the example's manifest and page say."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rft_api.graders import Grader
from rft_api.loader import load_file
from rft_api.validation import parse
from rft_graders.builtin import exact_match, numeric

EXAMPLES = Path(__file__).parents[2] / "examples"
SOLUTION = "3*4 = <<3*4=12>>12 boxes hold 12*100 = <<12*100=1200>>1,200 pens.\n#### {}"


def converted(*lines: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / "gsm8k" / "convert.py")]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("published", "answer"), [("1,200", 1200), ("-3", -3), ("0.5", 0.5)])
def test_gsm8ks_grader_accepts_only_the_number_of_the_published_solution(
    published: str, answer: float
) -> None:
    line = {"question": "How many pens?", "answer": SOLUTION.format(published)}
    row = json.loads(converted(line).stdout)
    assert (row["messages"][-1]["content"], row["answer"]) == ("How many pens?", answer)
    manifest = next(one.body for one in load_file(EXAMPLES / "gsm8k.yaml") if one.body["kind"] == "RFTJob")
    settings = parse(manifest).spec.graders[0].numeric
    assert settings is not None
    assert numeric(line["answer"], row, settings) == 1
    assert numeric(SOLUTION.format("7"), row, settings) == 0
    assert numeric(f"It is {published}.", row, settings) == 0, (
        "a correct number must score 1 only in the form that the prompt asks for"
    )


def test_the_error_for_an_invalid_line_of_gsm8k_has_its_number() -> None:
    done = converted({"question": "?", "answer": "#### 1"}, {"question": "?", "answer": "one"})
    assert done.returncode == 1
    assert done.stderr == "line 2: not a line of GSM8K: no number after ####\n"


def test_the_rows_of_the_arithmetic_example_are_what_its_generator_writes() -> None:
    command = [sys.executable, str(EXAMPLES / "arithmetic" / "generate.py"), "--check"]
    assert subprocess.run(command, check=False).returncode == 0


@pytest.mark.parametrize("name", ["arithmetic", "retrieval"])
def test_only_the_right_answer_of_a_row_gets_the_full_reward(name: str) -> None:
    documents = [one.body for one in load_file(EXAMPLES / f"{name}.yaml")]
    graders = parse(next(body for body in documents if body["kind"] == "RFTJob")).spec.graders
    text = next(body for body in documents if body["kind"] == "ConfigMap")["data"]["train.jsonl"]
    rows = [json.loads(line) for line in text.splitlines()]
    for row in rows:
        right = right_completion(name, row, row["answer"])
        assert [score(grader, right, row) for grader in graders] == [1, 1]
    row, other = rows[0], rows[1]["answer"]
    assert row["answer"] != other
    assert [score(grader, right_completion(name, row, other), row) for grader in graders] == [0, 1]
    assert [score(grader, f"I think: {right_completion(name, row, other)}.", row) for grader in graders] == [
        0,
        0,
    ]


def right_completion(name: str, row: dict[str, Any], answer: object) -> str:
    """Return a completion with this answer, in the form that the example's prompt asks for."""
    if name == "retrieval":
        return str(answer)
    a, b = re.findall(r"\d+", row["messages"][-1]["content"])
    return f"{a} + {b} = {answer}"


def score(grader: Grader, completion: str, row: dict[str, Any]) -> float:
    if grader.numeric is not None:
        return numeric(completion, row, grader.numeric)
    if grader.exact_match is not None:
        return exact_match(completion, row, grader.exact_match)
    assert grader.regex is not None
    return float(re.fullmatch(grader.regex.pattern, completion) is not None)
