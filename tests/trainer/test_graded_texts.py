"""The texts of graded_texts.txt: grader | text | gold (of a judge: its score) | expected score."""

from pathlib import Path

import pytest

from rft_api.graders import Numeric, Scale
from rft_graders import symbolic
from rft_graders.builtin import numeric
from rft_graders.reply import parse_score

LINES = Path(__file__).with_name("graded_texts.txt").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("line", LINES)
def test_a_text_earns_what_its_line_says(line: str) -> None:
    grader, text, gold, score = (part.strip() for part in line.split("|"))
    if grader == "judge":
        if gold == "error":
            with pytest.raises(ValueError, match="the judge named"):
                parse_score(text, Scale(min=1, max=10))
        else:
            assert parse_score(text, Scale(min=1, max=10)) == float(gold)
    elif grader == "math":
        assert symbolic.equal(text, {"answer": gold}, "answer") == float(score)
    else:
        assert numeric(text, {"answer": gold}, Numeric()) == float(score)
