"""Trains examples/arithmetic.yaml with ``maxStaleness`` 0, 1 and 4, three seeds each, and prints what each
run learned.

On a CPU, a run samples and trains in turn. Here ``run.json`` says that sampling and training have a GPU
each, so that batches are sampled ahead by older adapters, as they would be on GPUs. All computation still
runs on the CPU. With ``maxStaleness`` 0, sampling and training run in turn.

Each run has its own folder below ``--output``. If the command was interrupted, repeat it: it continues the
runs.
"""

import argparse
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.kl import ROOT, Outcome, held_out, outcome
from rft_api.job import RFTJob
from rft_cli.local import snapshot
from rft_cli.local.device import Hardware
from rft_cli.local.inputs import Overrides, resolve
from rft_cli.local.manifest import Manifest, load
from rft_run.config import RunConfig
from rft_run.folder import RunFolder

MANIFEST = ROOT / "examples" / "arithmetic.yaml"
STALENESS = (0, 1, 4)
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class StaleCase:
    """One run of the benchmark: its ``maxStaleness`` and its seed."""

    staleness: int
    seed: int

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return f"staleness{self.staleness}-seed{self.seed}"


def job_of(case: StaleCase, job: RFTJob) -> RFTJob:
    """Return the example's job with the ``maxStaleness`` and the seed of the case."""
    changed = {"max_staleness": case.staleness, "seed": case.seed}
    training = job.spec.training.model_copy(update=changed)
    return job.model_copy(update={"spec": job.spec.model_copy(update={"training": training})})


def apart(config: RunConfig) -> RunConfig:
    """Return the configuration of a run on the CPU, changed to two GPUs: one for sampling, one for training.

    So the sampling of a batch overlaps with the training on earlier batches.
    """
    return config.model_copy(update={"gpus": 2})


def train(case: StaleCase, manifest: Manifest, output: Path) -> Outcome:
    """Run the case, or continue its interrupted run, and return the run's results."""
    folder = RunFolder(output / case.name)
    if not folder.config.exists():
        inputs = resolve(manifest, Overrides(), folder.inputs)
        job = job_of(case, manifest.job)
        config = snapshot.build(job, inputs, Hardware("cpu", 0), folder.path, None)
        snapshot.save(folder.path, apart(config), inputs)
    command = [sys.executable, "-m", "rft_trainer", "--config", str(folder.config)]
    with (folder.path / "bench.log").open("a", encoding="utf-8") as log:
        subprocess.run(command, check=True, stdout=log, stderr=log)
    return outcome(folder)


def table(found: dict[StaleCase, Outcome]) -> Iterator[str]:
    """Yield the lines of the table: a line for each run.

    ``versions behind`` is the mean and the largest ``staleness`` of a step. ``bounded`` is the largest share
    of the tokens of a step whose weight was limited (``mismatch_bounded_fraction``).
    """
    yield "| maxStaleness | seed | base | tuned | difference, 95 % | versions behind | bounded | steps |"
    yield "|--:|--:|--:|--:|---|--:|--:|--:|"
    for case, made in found.items():
        behind = [step.staleness or 0 for step in made.steps]
        bounded = [step.mismatch_bounded_fraction or 0.0 for step in made.steps]
        cells = (
            f"{case.staleness}",
            f"{case.seed}",
            *held_out(made.evaluation),
            f"{statistics.fmean(behind):.1f}, {max(behind)}",
            f"{max(bounded):.4f}",
            f"{len(made.steps)}",
        )
        yield f"| {' | '.join(cells)} |"


def main() -> None:
    """Train the example with each ``maxStaleness`` and seed, then print the table of results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output", type=Path, default=ROOT / "runs" / "bench-staleness", help="folder of the runs"
    )
    parser.add_argument(
        "--staleness", type=int, action="append", help="run only this maxStaleness; may be repeated"
    )
    parser.add_argument("--seed", type=int, action="append", help="run only this seed; may be repeated")
    arguments = parser.parse_args()
    manifest = load(MANIFEST)
    cases = [
        StaleCase(staleness, seed)
        for seed in arguments.seed or SEEDS
        for staleness in arguments.staleness or STALENESS
    ]
    output: Path = arguments.output.resolve()
    print("\n".join(table({case: train(case, manifest, output) for case in cases})))


if __name__ == "__main__":
    main()
