"""The benchmark of the KL penalty: the manifests of its runs, and the tables of their results."""

from pathlib import Path

import pytest

from bench.kl import BETAS, POINTS, SEEDS, TASKS, Case, Outcome, curves, manifest, parts, results
from rft_api.dumper import dump
from rft_api.loader import load_documents, load_file
from rft_api.status import EvaluationResult
from rft_api.validation import parse
from rft_run.steps import StepRecord

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("beta", "seed"), list(zip(BETAS, SEEDS, strict=False)))
def test_each_case_is_its_example_with_another_beta_and_seed(task: str, beta: float, seed: int) -> None:
    documents = [document.body for document in load_file(EXAMPLES / f"{task}.yaml")]
    given = parse(documents[0]).spec
    job, *others = manifest(Case(task, beta, seed), documents)
    (written,) = load_documents(dump(job))
    found = parse(written.body).spec
    assert (found.training.kl_beta, found.training.seed) == (beta, seed)
    changed = {"kl_beta": given.training.kl_beta, "seed": given.training.seed}
    assert found.training.model_copy(update=changed) == given.training
    assert others == documents[1:]


def test_the_tables_have_a_line_for_each_run_with_its_numbers() -> None:
    reward = {"base": 0.1, "tuned": 0.7, "difference": {"mean": 0.6, "low": 0.5, "high": 0.7}}
    evaluation = EvaluationResult.model_validate({"rows": 32, "step": 3, "reward": reward})
    seconds = {"rollout": 1.0, "update": 2.5}
    steps = [
        StepRecord(step=number, reward=0.1 * number, kl=0.01 * number, phases=seconds) for number in (1, 2, 3)
    ]
    found = {Case("arithmetic", 0.001, 2): Outcome(evaluation, steps)}
    line = list(results(found))[2]
    assert line == "| arithmetic | 0.001 | 2 | 0.100 | 0.700 | +0.600, +0.500 to +0.700 | 0.030 | 2.5 |"
    assert list(curves(found))[2].startswith("| arithmetic | 0.001 | 2 | 0.100 | 0.200 | 0.300")


def test_a_curve_is_cut_into_parts_that_cover_it() -> None:
    assert parts([]) == []
    assert parts([1.0, 2.0]) == [1.0, 2.0]
    assert len(parts([float(number) for number in range(25)])) == POINTS
    assert parts([0.0] * 12 + [1.0] * 12) == [0, 0, 0, 1, 1, 1]
