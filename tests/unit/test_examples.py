"""The examples' own code does what their manifests and pages say."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rft_api.loader import load_file
from rft_api.validation import parse
from rft_trainer.rewards.builtin import numeric

EXAMPLES = Path(__file__).parents[2] / "examples"
SOLUTION = "3*4 = <<3*4=12>>12 boxes hold 12*100 = <<12*100=1200>>1,200 pens.\n#### {}"


def converted(*lines: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / "gsm8k" / "convert.py")]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("published", "answer"), [("1,200", 1200), ("-3", -3), ("0.5", 0.5)])
def test_gsm8ks_grader_takes_the_published_solution_and_no_other_number(
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
    assert numeric(f"It is {published}.", row, settings) == 0, "the place is part of what is asked"


def test_what_is_no_line_of_gsm8k_is_named_with_its_number() -> None:
    done = converted({"question": "?", "answer": "#### 1"}, {"question": "?", "answer": "one"})
    assert done.returncode == 1
    assert done.stderr == "line 2: not a line of GSM8K: no number after ####\n"
