"""Trains SmolLM2-135M with two environments, and prints the held-out rewards of the base and the tuned model.

``market``: the model must call a tool, because only the tool knows the price that a prompt asks for. Each
prompt begins with two example calls, for the prices of other items.

``guessing``: a game of up to three turns without tools, which is ``examples/guessing.yaml``.

``make bench-environments`` runs ``rft run`` on both. Each run has its own folder in ``--output``. Repeat the
command to continue runs that were interrupted.
"""

import argparse
import hashlib
import json
import os
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.kl import Outcome, held_out, run
from bench.machine import commit, processor
from rft_api.loader import load_file
from rft_run.steps import StepRecord

ROOT = Path(__file__).resolve().parents[1]
TASKS = ("market", "guessing")
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
ITEMS = (
    *("apple", "bread", "candle", "drum", "egg", "flute", "glove", "hammer", "iron", "jar", "kite", "lamp"),
    *("melon", "needle", "orange", "pencil", "quilt", "ring", "soap", "table", "umbrella", "vase", "watch"),
)
MARKETS = range(1, 9)
DECOYS = ("stock", "count")
"""Names of a second tool of ``market``, which the model must not call. The seed chooses one of the names.

The model gets its tools sorted by name: ``count`` comes before the tool ``price``, and ``stock`` after it.
"""
MARKET = '''
import hashlib
import re


def price_of(item, market):
    return 10 + hashlib.sha256(f"{item} {market}".encode()).digest()[0] % 90


class Environment:
    """Markets whose prices only the tool price knows."""

    def reset(self, item, market, **row):
        self.wanted, self.asked, self.said = (item, market), False, ""

    def price(self, item: str, market: int) -> int:
        """Return what an item costs in a market."""
        self.asked = self.asked or (item, market) == self.wanted
        return price_of(item, market)

    def DECOY(self, item: str, market: int) -> int:
        """Return how many of an item a market has."""
        return hashlib.sha256(f"{market} {item}".encode()).digest()[0] % 9

    def reply(self, text):
        self.said = text

    def get_reward(self):
        right = re.findall("[0-9]+", self.said)[-1:] == [str(price_of(*self.wanted))]
        return 0.3 * self.asked + 0.7 * (self.asked and right)
'''


@dataclass(frozen=True)
class Case:
    """One run of the benchmark."""

    task: str
    seed: int
    steps: int
    model: str

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return f"{self.task}-seed{self.seed}"


def price_of(item: str, market: int) -> int:
    """Return the result of the tool ``price`` of the environment ``market``."""
    return 10 + hashlib.sha256(f"{item} {market}".encode()).digest()[0] % 90


def market_rows() -> list[dict[str, Any]]:
    """Return the rows of ``market``.

    Each row asks for the price of an item. Before this question it has two examples: questions for the prices
    of other items, each with the call of the tool ``price``. The examples have no results of the calls. With
    results, the model wrote a result of its own in place of a call in 23 of 24 tries.
    """
    asked = [(item, market) for market in MARKETS for item in ITEMS]
    rows = []
    for place, (item, market) in enumerate(asked):
        messages: list[dict[str, Any]] = []
        for step in (5, 31):
            messages += _example(*asked[(place + step) % len(asked)])
        messages.append(_question(item, market))
        rows.append({"messages": messages, "item": item, "market": market})
    return rows


def _question(item: str, market: int) -> dict[str, Any]:
    return {"role": "user", "content": f"What does the {item} cost in market {market}?"}


def _example(item: str, market: int) -> list[dict[str, Any]]:
    call = {"type": "function", "function": {"name": "price", "arguments": {"item": item, "market": market}}}
    return [_question(item, market), {"role": "assistant", "content": "", "tool_calls": [call]}]


def documents(case: Case) -> list[dict[str, Any]]:
    """Return the YAML documents of a case: its RFTJob, and the ConfigMaps with rows and code."""
    job, *others = [document.body for document in load_file(ROOT / "examples" / "guessing.yaml")]
    spec = job["spec"]
    spec |= {
        "model": {"name": case.model},
        "evaluation": {"fraction": 0.25, "temperature": 1.0, "samples": 2},
        "stop": {"maxSteps": case.steps},
        "training": {**spec["training"], "seed": case.seed, "learningRate": 2e-4, "loraAlpha": 64},
    }
    if case.task == "market":
        rows = "".join(json.dumps(row) + "\n" for row in market_rows())
        code = MARKET.replace("DECOY", DECOYS[case.seed % len(DECOYS)])
        for data in (other["data"] for other in others if "data" in other):
            data |= {name: text for name, text in _data(rows, code).items() if name in data}
        spec["training"] |= {"maxContextLength": 512}
        spec["sampling"] = {"maxTokens": 40, "temperature": 1.0, "numRollouts": 6}
        spec["environment"]["maxTurns"] = 3
    return [job, *others]


def _data(rows: str, code: str) -> dict[str, str]:
    return {"train.jsonl": rows, "environment.py": code}


def train(case: Case, output: Path) -> Outcome:
    """Run the case, or continue its interrupted run, and return the run's results."""
    return run(case.name, documents(case), output)


def results(found: dict[Case, Outcome]) -> Iterator[str]:
    """Yield the lines of a Markdown table: held-out rewards, and rollout metrics at start and end."""
    yield (
        "| task | seed | rows | base | tuned | difference, 95 % interval | turns | tool calls | tool errors |"
        " waiting for environments | steps | minutes of steps |"
    )
    yield "|---|--:|--:|--:|--:|---|--:|--:|--:|--:|--:|--:|"
    for case, made in found.items():
        minutes = sum(step.step_seconds or 0.0 for step in made.steps) / 60
        cells = (
            case.task,
            f"{case.seed}",
            f"{made.evaluation.rows}",
            *held_out(made.evaluation),
            _from_to(made.steps, "turns"),
            _from_to(made.steps, "tool_calls"),
            _from_to(made.steps, "tool_errors"),
            _from_to(made.steps, "environment_fraction"),
            f"{len(made.steps)}",
            f"{minutes:.1f}",
        )
        yield f"| {' | '.join(cells)} |"


def _from_to(steps: Sequence[StepRecord], name: str) -> str:
    """Return the mean of a metric over the first and over the last quarter of the steps."""
    values = [float(value) for step in steps if (value := getattr(step, name)) is not None]
    if not values:
        return "-"
    quarter = max(1, len(values) // 4)
    first, last = statistics.fmean(values[:quarter]), statistics.fmean(values[-quarter:])
    return f"{first:.2f} to {last:.2f}"


def where() -> str:
    """Return the commit and the machine with which the benchmark ran."""
    load = os.getloadavg()[0]
    return f"Commit {commit()}, {processor()}, {os.cpu_count()} cores, load {load:.1f} at the end."


def main() -> None:
    """Train with each environment, then print the table of results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    output = ROOT / "runs" / "bench-environments"
    parser.add_argument("--output", type=Path, default=output, help="folder for the runs")
    parser.add_argument("--task", choices=TASKS, action="append", help="run only this task; may be repeated")
    parser.add_argument(
        "--seed", type=int, action="append", help="seed of a run; may be repeated (default: 0)"
    )
    parser.add_argument("--steps", type=int, default=20, help="number of steps of each run")
    parser.add_argument("--model", default=MODEL, help="base model, or its folder")
    arguments = parser.parse_args()
    cases = [
        Case(task, seed, arguments.steps, arguments.model)
        for task in arguments.task or TASKS
        for seed in arguments.seed or [0]
    ]
    found = {case: train(case, arguments.output) for case in cases}
    print("\n".join([*results(found), "", where()]))


if __name__ == "__main__":
    main()
