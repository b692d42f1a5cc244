"""Trains the examples with and without the KL term, three seeds each. Prints what each run learned.

``make bench-kl`` runs ``rft run`` on arithmetic and retrieval, with the default of ``klBeta`` and with 0.
Each run has its own folder below ``--output``. If the command was interrupted, repeat it: it continues the
runs.
"""

import argparse
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from rft_api.dumper import dump
from rft_api.effective import OBJECTIVE_DEFAULTS
from rft_api.loader import load_file
from rft_api.status import EvaluationResult
from rft_run.folder import RunFolder
from rft_run.steps import StepRecord, read_steps

ROOT = Path(__file__).resolve().parents[1]
TASKS = ("arithmetic", "retrieval")
SEEDS = (0, 1, 2)
BETAS = (OBJECTIVE_DEFAULTS["grpo"].kl_beta, 0.0)
POINTS = 6
"""Number of points of a curve in the table. A run is divided into this many equal parts, and each point is
the mean reward of one part.
"""


@dataclass(frozen=True)
class Case:
    """One run of the benchmark: an example, its ``klBeta`` and its seed."""

    task: str
    beta: float
    seed: int

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return f"{self.task}-kl{self.beta:g}-seed{self.seed}"


@dataclass(frozen=True)
class Outcome:
    """The results of a run: its held-out evaluation, and the records of its steps."""

    evaluation: EvaluationResult
    steps: Sequence[StepRecord]


def manifest(case: Case, documents: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the YAML documents of an example. Its RFTJob gets the ``klBeta`` and the seed of the case."""
    job, *others = documents
    spec = job["spec"]
    training = {**spec["training"], "klBeta": case.beta, "seed": case.seed}
    return [{**job, "spec": {**spec, "training": training}}, *others]


def train(case: Case, output: Path) -> Outcome:
    """Run the case, or continue its interrupted run, and return the run's results."""
    example = load_file(ROOT / "examples" / f"{case.task}.yaml")
    return run(case.name, manifest(case, [document.body for document in example]), output)


def run(name: str, documents: Sequence[dict[str, Any]], output: Path) -> Outcome:
    """Run the RFTJob in YAML documents, and return the run's results. If the run was interrupted, continue
    it.

    In the folder ``output``, the manifest is the file ``name``.yaml, and the run's folder is ``name``.
    """
    output.mkdir(parents=True, exist_ok=True)
    written = output / f"{name}.yaml"
    written.write_text("---\n".join(map(dump, documents)), encoding="utf-8")
    command = [Path(sys.executable).with_name("rft"), "run", written, "--output", output / name]
    subprocess.run(list(map(str, command)), check=True)
    return outcome(RunFolder(output / name))


def outcome(folder: RunFolder) -> Outcome:
    """Return the results of a finished run from its folder."""
    status = yaml.safe_load(folder.status.read_text(encoding="utf-8"))
    evaluation = EvaluationResult.model_validate(status["evaluation"])
    return Outcome(evaluation, list(read_steps(folder.metrics)))


def held_out(evaluation: EvaluationResult) -> tuple[str, str, str]:
    """Return three cells of a table: the mean held-out reward of the base model, that of the tuned model, and
    the difference with its 95 % interval.
    """
    reward = evaluation.reward
    assert reward is not None
    assert reward.tuned is not None
    assert reward.difference is not None
    paired = reward.difference
    interval = f"{paired.mean:+.3f}, {paired.low:+.3f} to {paired.high:+.3f}"
    return f"{reward.base:.3f}", f"{reward.tuned:.3f}", interval


def results(found: dict[Case, Outcome]) -> Iterator[str]:
    """Yield the lines of the table of held-out rewards and times."""
    yield "| task | klBeta | seed | base | tuned | difference, 95 % interval | last KL | s per update |"
    yield "|---|--:|--:|--:|--:|---|--:|--:|"
    for case, made in found.items():
        kl = [step.kl for step in made.steps if step.kl is not None]
        seconds = [step.phases["update"] for step in made.steps if "update" in step.phases]
        cells = (
            case.task,
            f"{case.beta:g}",
            f"{case.seed}",
            *held_out(made.evaluation),
            f"{kl[-1]:.3f}" if kl else "-",
            f"{statistics.median(seconds):.1f}",
        )
        yield f"| {' | '.join(cells)} |"


def curves(found: dict[Case, Outcome]) -> Iterator[str]:
    """Yield the lines of the table of curves: the mean reward over each of ``POINTS`` parts of a run."""
    yield f"| task | klBeta | seed | {' | '.join(f'part {number}' for number in range(1, POINTS + 1))} |"
    yield "|---|--:|--:|" + "--:|" * POINTS
    for case, made in found.items():
        means = parts([step.reward for step in made.steps if step.reward is not None])
        cells = " | ".join(f"{mean:.3f}" for mean in means)
        yield f"| {case.task} | {case.beta:g} | {case.seed} | {cells} |"


def parts(rewards: Sequence[float]) -> list[float]:
    """Divide a run into ``POINTS`` parts of equal length. Return the mean reward of each part.

    If there are fewer rewards than ``POINTS``, return each reward.
    """
    count = min(POINTS, len(rewards))
    ends = [len(rewards) * number // count for number in range(count + 1)] if count else []
    return [statistics.fmean(rewards[a:b]) for a, b in pairwise(ends)]


def main() -> None:
    """Train each example with each ``klBeta`` and seed, then print the tables of results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "bench-kl", help="folder of the runs")
    parser.add_argument("--task", choices=TASKS, action="append", help="run only this task; may be repeated")
    parser.add_argument("--seed", type=int, action="append", help="run only this seed; may be repeated")
    arguments = parser.parse_args()
    cases = [
        Case(task, beta, seed)
        for task in arguments.task or TASKS
        for beta in BETAS
        for seed in arguments.seed or SEEDS
    ]
    found = {case: train(case, arguments.output) for case in cases}
    print("\n".join([*results(found), "", *curves(found)]))


if __name__ == "__main__":
    main()
