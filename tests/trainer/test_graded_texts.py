"""Each text in graded_texts.txt gets the score in its line. The top of the file explains the columns."""

from pathlib import Path

import pytest

from rft_api.graders import Grader, Scale
from rft_graders import symbolic
from rft_graders.builtin import builtin
from rft_graders.reply import parse_score
from rft_graders.types import GradeItem

TABLE = Path(__file__).with_name("graded_texts.txt").read_text(encoding="utf-8").splitlines()
LINES = [line for line in TABLE if line and not line.startswith("# ")]


def graded(grader: str, text: str, gold: str) -> float:
    """Return the score of ``text``. The arguments are columns of a line of graded_texts.txt.

    Raises:
        ValueError: ``text`` is a judge's reply that cannot be read, or ``gold`` cannot be read.
    """
    kind, _, setting = grader.partition(" ")
    if kind == "judge":
        low, _, high = gold.rpartition("-")
        return parse_score(text, Scale(min=float(low), max=float(high)), cut=setting == "cut")
    extract = {"": {}, "####": {"extract": "marker", "marker": "####"}}.get(setting, {"extract": setting})
    one = Grader.model_validate({"name": "g", kind: extract})
    read = GradeItem([], text, {}).read_by(one)
    if read is None:
        return 0.0
    if kind == "math":
        return symbolic.equal(read, {"answer": gold}, "answer")
    function = builtin(one)
    assert function is not None
    return function(read, {"answer": gold})


@pytest.mark.parametrize("line", LINES)
def test_a_text_earns_what_its_line_says(line: str) -> None:
    grader, text, gold, score = (part.strip(" ").replace("⏎", "\n") for part in line.split("|"))
    if score == "error":
        with pytest.raises(ValueError, match=r"named|contains no|was cut before"):
            graded(grader, text, gold)
    else:
        assert graded(grader, text, gold) == float(score)


def test_the_table_has_texts_of_every_kind() -> None:
    kinds = [line.split("|")[0].split()[0] for line in LINES]
    assert len(LINES) == len(set(LINES)) >= 150
    assert {"numeric", "math", "judge"} == set(kinds)
