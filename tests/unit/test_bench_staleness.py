"""The benchmark of stale batches: the configurations of its runs, and the table of their results."""

from pathlib import Path

import pytest

from bench.kl import Outcome
from bench.staleness import MANIFEST, SEEDS, STALENESS, StaleCase, apart, job_of, table
from rft_api.status import EvaluationResult
from rft_cli.local import snapshot
from rft_cli.local.device import Hardware
from rft_cli.local.inputs import Overrides, resolve
from rft_cli.local.manifest import load
from rft_planner.overlap import overlaps
from rft_run.steps import StepRecord
from rft_trainer.engines import roles_apart


@pytest.mark.parametrize("staleness", STALENESS)
def test_the_steps_of_a_run_overlap_only_if_batches_may_be_stale(staleness: int, tmp_path: Path) -> None:
    manifest = load(MANIFEST)
    job = job_of(StaleCase(staleness, 2), manifest.job)
    inputs = resolve(manifest, Overrides(), tmp_path)
    config = snapshot.build(job, inputs, Hardware("cpu", 0), tmp_path, None)
    assert not overlaps(config.spec, roles_apart(config))
    assert overlaps(config.spec, roles_apart(apart(config))) == (staleness > 0)
    assert apart(config).device == "cpu"
    assert (config.spec.training.max_staleness, config.spec.training.seed) == (staleness, 2)
    same = job.spec.training.model_dump(exclude={"max_staleness", "seed"})
    assert same == manifest.job.spec.training.model_dump(exclude={"max_staleness", "seed"})


def test_each_case_has_a_folder_of_its_own() -> None:
    names = {StaleCase(staleness, seed).name for staleness in STALENESS for seed in SEEDS}
    assert len(names) == len(STALENESS) * len(SEEDS)


def test_the_table_has_a_line_for_each_run_with_its_numbers() -> None:
    reward = {"base": 0.1, "tuned": 0.7, "difference": {"mean": 0.6, "low": 0.5, "high": 0.7}}
    evaluation = EvaluationResult.model_validate({"rows": 32, "step": 3, "reward": reward})
    steps = [
        StepRecord(step=1, staleness=0),
        StepRecord(step=2, staleness=3, mismatch_bounded_fraction=0.0125),
    ]
    line = list(table({StaleCase(4, 1): Outcome(evaluation, steps)}))[2]
    assert line == "| 4 | 1 | 0.100 | 0.700 | +0.600, +0.500 to +0.700 | 1.5, 3 | 0.0125 | 2 |"
