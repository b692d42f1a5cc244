"""Held-out evaluations are read from a run's folder, also if an older release wrote them."""

import json
from pathlib import Path

import pytest

from rft_run.evaluation import EvaluationRecord, UnreadableEvaluation, mean_score, read_evaluation
from rft_run.folder import RunFolder


def written(folder: Path, text: str) -> RunFolder:
    run = RunFolder(folder)
    run.evaluations.mkdir(exist_ok=True)
    run.evaluation_of(4).write_text(text)
    return run


def test_an_evaluation_is_read_with_unknown_fields(tmp_path: Path) -> None:
    body = {
        "step": 4,
        "lines": [3, 7, 9],
        "reward": [0.5, None, 1.0],
        "graders": {"right": [0.5, None, 1.0]},
        "completions": ["a", "b", "c"],
        "truncated": 0.0,
        "rows": ["x", "y", "z"],
        "novelty": 1,
    }
    found = read_evaluation(written(tmp_path, json.dumps(body)), 4)
    assert found.mean_reward == 0.75
    assert found.rewards_by_row() == {(3, "x"): 0.5, (9, "z"): 1.0}
    assert found.dump() == body


def test_a_file_of_an_older_release_has_no_digests() -> None:
    found = EvaluationRecord(step=0, lines=[1, 2], reward=[0.0, 1.0])
    assert found.rewards_by_row() == {(1, ""): 0.0, (2, ""): 1.0}


def test_scores_that_are_all_missing_have_no_mean() -> None:
    assert mean_score([None, None]) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "is not a held-out evaluation"),
        ('{"step": 4}', "is not a held-out evaluation"),
        ('{"step": 4, "lines": [1], "reward": [NaN]}', "is not a held-out evaluation"),
        ('{"step": 4, "lines": [1, 2], "reward": [0.5]}', "is not a held-out evaluation"),
        ('{"step": 4, "lines": [1], "reward": [0.5], "graders": {"a": []}}', "is not a held-out evaluation"),
        ('{"step": 4, "lines": [1], "reward": [0.5], "rows": ["a", "b"]}', "is not a held-out evaluation"),
        ("{", "Expecting"),
    ],
)
def test_anything_else_names_the_file(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UnreadableEvaluation, match=said) as raised:
        read_evaluation(written(tmp_path, text), 4)
    assert "step-000004.json" in str(raised.value)


def test_a_missing_evaluation_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(UnreadableEvaluation, match=r"step-000004\.json: there is no such evaluation"):
        read_evaluation(RunFolder(tmp_path), 4)
