"""Measures how long our trainer and TRL's GRPOTrainer need to reach a held-out reward of 0.8 on arithmetic.

Both train SmolLM2-135M on the CPU, on the rows of `examples/arithmetic.yaml`. One Python function grades the
completions of both trainers. Both trainers hold out the same 128 rows, and generate their answers greedily.

There are two kinds of settings:

- `defaults`: each trainer has its own defaults. Only the maximum length of a completion is set, to 16 tokens.
- `equal`: both trainers have the same settings, similar to those of the example.

Each trainer makes runs with three seeds for each kind of settings. The measured time is the time of the
training steps until the reward is reached. Loading and evaluations are not part of it. A run ends when it
reaches the reward, or after `--minutes`, including evaluations.

`make bench-reward` prints a table of medians. Each run has a folder in `--output`. Repeat the command to make
the runs that have no result yet.
"""

import argparse
import json
import math
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bench.memory import shape_of
from bench.sides import ROOT, TRL, TRL_PYTHON, follow, prepare_trl
from rft_api.job import RFTJobSpec
from rft_api.loader import load_file
from rft_planner.plan import plan
from rft_planner.precision import fast_cpu_dtype
from rft_run.config import JobIdentity, RunConfig
from rft_run.folder import RunFolder
from rft_run.steps import read_steps
from rft_trainer.evaluate import RowScores
from rft_trainer.runtime import machine, models

TARGET = 0.8
HELD_OUT = 128
"""Number of rows that are held out: the last ones of the example."""
EVERY_STEPS = 2
"""Number of steps between evaluations."""
MAX_TOKENS, CONTEXT = 16, 128
SIDES = ("trl", "ours")
SETTINGS = ("defaults", "equal")
SEEDS = (0, 1, 2)
ROLLOUTS, COMPLETIONS = 4, 64
"""With equal settings: number of rollouts of each prompt, and number of completions in a step."""
GRADER = r'''
import re

def grade(prompts, completions, answer, **_):
    """Two thirds for the right sum as the last number, and one third for nothing but an equation."""
    texts = [completion[-1]["content"] for completion in completions]
    found = [re.findall(r"[0-9]+", text) for text in texts]
    right = [bool(numbers) and int(numbers[-1]) == int(sum_) for numbers, sum_ in zip(found, answer)]
    alone = [bool(re.fullmatch(r"\d+ \+ \d+ = \d+", text.strip())) for text in texts]
    return [(2 * one + other) / 3 for one, other in zip(right, alone)]
'''


@dataclass(frozen=True)
class Case:
    """One run of the benchmark.

    ``side``: the trainer, "trl" or "ours". ``settings``: "defaults" or "equal".
    """

    side: str
    settings: str
    seed: int

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return f"{self.settings}-{self.side}-seed{self.seed}"


@dataclass(frozen=True)
class Curve:
    """The held-out rewards of a run in order.

    Each of the ``points`` has two values: the seconds of training before the evaluation, and the reward.
    """

    points: tuple[tuple[float, float], ...]

    @property
    def seconds(self) -> float:
        """Seconds of training until the reward was reached; infinite if it was not reached."""
        return next((seconds for seconds, reward in self.points if reward >= TARGET), math.inf)

    @property
    def best(self) -> float:
        """The highest held-out reward."""
        return max(reward for _, reward in self.points)


def rows() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows of the example: those for training, and those that are held out."""
    maps = [one.body for one in load_file(ROOT / "examples" / "arithmetic.yaml")]
    text = next(one["data"]["train.jsonl"] for one in maps if one["kind"] == "ConfigMap")
    found = [json.loads(line) for line in text.splitlines()]
    return found[:-HELD_OUT], found[-HELD_OUT:]


def trl_case(case: Case, model: Path, minutes: float) -> dict[str, Any]:
    """Return the JSON object that ``bench/trl_side/reward.py`` reads for a case.

    ``minutes``: the time limit of the run. The object's key ``equal`` has the settings that both trainers
    use. It is None if TRL uses its own defaults.
    """
    trained, held_out = rows()
    equal = {
        "microBatch": 16, "completions": COMPLETIONS, "rollouts": ROLLOUTS, "temperature": 0.7, "topK": 40,
        "klBeta": 0.0, "learningRate": 2e-4, "rank": 8, "alpha": 64, "trlCheckpointing": False,
    }  # fmt: skip
    return {
        "model": str(model), "rows": trained, "heldOut": held_out, "grader": GRADER, "seed": case.seed,
        "threads": machine.usable_cores(), "dtype": fast_cpu_dtype(), "maxTokens": MAX_TOKENS,
        "target": TARGET, "everySteps": EVERY_STEPS, "minutes": minutes,
        "equal": equal if case.settings == "equal" else None,
    }  # fmt: skip


def spec_of(case: Case, model: Path, deadline: datetime) -> RFTJobSpec:
    """Return the spec of our run, which completes at the reward or at the time ``deadline`` (UTC)."""
    training: dict[str, Any] = {"seed": case.seed}
    sampling: dict[str, Any] = {"maxTokens": MAX_TOKENS}
    if case.settings == "equal":
        given = trl_case(case, model, 0.0)["equal"]
        training |= {
            "learningRate": given["learningRate"], "loraRank": given["rank"], "loraAlpha": given["alpha"],
            "klBeta": given["klBeta"], "objective": "grpo", "lossAggregation": "token",
            "batchSizeTokens": 4096, "maxContextLength": CONTEXT, "epochs": 10,
        }  # fmt: skip
        sampling |= {
            "temperature": given["temperature"], "topK": given["topK"], "numRollouts": given["rollouts"],
        }  # fmt: skip
    return RFTJobSpec.model_validate(
        {
            "model": {"name": str(model)},
            "dataset": {"uri": "./rows.jsonl"},
            "graders": [{"name": "sum", "python": {"inline": GRADER}}],
            "evaluation": {"dataset": {"uri": "./held-out.jsonl"}, "everySteps": EVERY_STEPS},
            "training": training,
            "sampling": sampling,
            "resources": {"gpus": 0},
            "stop": {"targetReward": TARGET, "deadline": deadline.strftime("%Y-%m-%dT%H:%M:%SZ")},
            "storage": {"ephemeral": {}},
        }
    )


def measure(case: Case, folder: Path, minutes: float) -> Curve:
    """Return the held-out rewards of a case over the time of its training.

    The case is run, unless ``folder`` already has these rewards. Raises RuntimeError if its trainer failed.
    """
    result = folder / "curve.json"
    if result.exists():
        return Curve(tuple((a, b) for a, b in json.loads(result.read_text(encoding="utf-8"))))
    folder.mkdir(parents=True, exist_ok=True)
    model = models.resolve(models.EXAMPLE_MODEL)
    if case.side == "trl":
        given = folder / "case.json"
        given.write_text(json.dumps(trl_case(case, model, minutes)), encoding="utf-8")
        lines, _ = follow([str(TRL_PYTHON), str(TRL / "reward.py"), str(given)], folder)
        found = Curve(tuple((line["seconds"], line["heldOut"]) for _, line in lines))
    else:
        found = _ours(case, model, folder, datetime.now(UTC) + timedelta(minutes=minutes))
    result.write_text(json.dumps(found.points), encoding="utf-8")
    return found


def _ours(case: Case, model: Path, folder: Path, deadline: datetime) -> Curve:
    for name, lines in zip(("rows", "held-out"), rows(), strict=True):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    spec = spec_of(case, model, deadline)
    made = plan(spec, "uid", shape=shape_of(model))
    assert made.effective is not None
    config = RunConfig(
        job=JobIdentity(name="reward", namespace="bench", uid="uid"),
        spec=spec,
        effective=made.effective,
        plan=made,
        run_dir=str(folder),
        dataset_path=str(folder / "rows.jsonl"),
        evaluation_path=str(folder / "held-out.jsonl"),
    )
    (folder / "run.json").write_text(json.dumps(config.dump()), encoding="utf-8")
    follow([sys.executable, "-m", "rft_trainer", "--config", str(folder / "run.json")], folder)
    return curve_of(RunFolder(folder))


def curve_of(folder: RunFolder) -> Curve:
    """Return the held-out rewards of our run, each with the seconds of the steps before it."""
    seconds, at = 0.0, {0: 0.0}
    for record in read_steps(folder.metrics):
        seconds += record.step_seconds or 0.0
        at[record.step] = seconds
    scores = [RowScores.read(folder, step) for step in folder.evaluated_steps()]
    return Curve(tuple((at[one.step], one.mean_reward) for one in scores if one is not None))


def table(found: Mapping[Case, Curve]) -> Iterator[str]:
    """Yield the lines of the table: the seconds until the reward is reached, for each seed and as median.

    A run that did not reach the reward counts as the slowest.
    """
    yield f"| settings | side | s to {TARGET:g}, by seed | median s | times TRL | best reward, median |"
    yield "|---|---|---|--:|--:|--:|"
    for settings in SETTINGS:
        by_side = {
            side: [one for case, one in found.items() if (case.side, case.settings) == (side, settings)]
            for side in SIDES
        }
        for side, curves in by_side.items():
            if curves:
                median, base = _median(curves), _median(by_side["trl"])
                ratio = f"{base / median:.2f}" if side == "ours" and max(base, median) < math.inf else "-"
                cells = (
                    settings,
                    "TRL" if side == "trl" else side,
                    ", ".join(_seconds(one.seconds) for one in curves),
                    _seconds(median),
                    ratio,
                    f"{statistics.median(one.best for one in curves):.3f}",
                )
                yield f"| {' | '.join(cells)} |"


def _median(curves: Sequence[Curve]) -> float:
    return statistics.median_high([one.seconds for one in curves] or [math.inf])


def _seconds(value: float) -> str:
    return f"{value:.0f}" if value < math.inf else "not reached"


def main() -> None:
    """Run all cases, seed by seed, with both trainers in turn. Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output", type=Path, default=ROOT / "runs" / "bench-reward", help="folder for the runs"
    )
    parser.add_argument(
        "--settings", choices=SETTINGS, action="append", help="run only these settings; may be repeated"
    )
    parser.add_argument("--side", choices=SIDES, action="append", help="run only this side; may be repeated")
    parser.add_argument("--seed", type=int, action="append", help="run only this seed; may be repeated")
    parser.add_argument("--minutes", type=float, default=45, help="time limit of each run")
    arguments = parser.parse_args()
    cases = [
        Case(side, settings, seed)
        for settings in arguments.settings or SETTINGS
        for seed in arguments.seed or SEEDS
        for side in arguments.side or SIDES
    ]
    if any(case.side == "trl" for case in cases):
        prepare_trl()
    found = {}
    for case in cases:
        found[case] = measure(case, arguments.output.resolve() / case.name, arguments.minutes)
        print(f"{case.name}: {_seconds(found[case].seconds)}", file=sys.stderr, flush=True)
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()
