"""Measures how long `rft report` takes for a long run. Some rollouts contain hostile texts, such as scripts.

    python -m bench.report [--steps N] [--folder DIR]

Without ``--folder`` the run's folder is temporary. The elapsed time and the CPU time are those of the whole
command, including its start. The CPU time depends less on other programs of the machine than the elapsed
time.
"""

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rft_api.effective import effective
from rft_api.status import RFTJobStatus
from rft_api.validation import parse
from rft_run.config import JobIdentity, RunConfig
from rft_run.evaluation import EvaluationRecord
from rft_run.folder import RunFolder
from rft_run.rollouts import RolloutRecord, as_bytes, compressed
from rft_run.status_file import write_status
from rft_run.steps import StepRecord, as_lines

ROWS = 32
HOSTILE_ROWS = 4
HOSTILE = (
    "<script>document.title = 'hacked'</script><img src=x onerror=alert(1)>",
    "\x1b[31mred\x1b]0;title\x07 \u202eright to left\u202c \u05e9\u05dc\u05d5\u05dd",
    "</pre></style></title>{{ 7 * 7 }}{% raw %} &lt; &amp; \"quoted\" 'text'",
    "x" * (1 << 20),
)


def main() -> None:
    """Write the folder, make the page three times, and print the shortest times and the page's size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--folder", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.folder or Path(temporary) / "long"
        write_run(folder, chosen.steps)
        page = folder / "report.html"
        command = [sys.executable, "-m", "rft_cli.main", "report", str(folder), "-o", str(page)]
        times = [_timed(command) for _ in range(3)]
        elapsed, used = (min(values) for values in zip(*times, strict=True))
        size = page.stat().st_size / 1024
        sys.stdout.write(
            f"{chosen.steps:,} steps: {elapsed:.2f} s, {used:.2f} s of CPU time; page of {size:.0f} KiB\n"
        )


def _timed(command: list[str]) -> tuple[float, float]:
    """Run a command. Return the elapsed time and the command's CPU time, in seconds."""
    before, started = os.times(), time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return time.monotonic() - started, used


def write_run(path: Path, steps: int, name: str = "long") -> None:
    """Write the folder of a finished run of ``steps`` steps, as a trainer would leave it."""
    run = RunFolder(path)
    for folder in (run.rollouts, run.evaluations):
        folder.mkdir(parents=True, exist_ok=True)
    spec = parse(_manifest(name)).spec
    config = RunConfig(
        job=JobIdentity(name=name, namespace="default", uid="uid"),
        spec=spec,
        effective=effective(spec, "uid"),
        run_dir=str(path),
        dataset_path="rows.jsonl",
    )
    run.config.write_text(json.dumps(config.dump()), encoding="utf-8")
    random.seed(0)
    records = [_step(step, steps) for step in range(1, steps + 1)]
    run.metrics.write_bytes(as_lines(records))
    write_status(run.status, RFTJobStatus.model_validate(_status(records, steps)))
    for step in (1, steps):
        run.rollouts_of(step).write_bytes(compressed(as_bytes(_rollouts(step))))
    for step in dict.fromkeys([0, *range(0, steps + 1, max(1, steps // 5)), steps]):
        found = _evaluation(step, steps)
        run.evaluation_of(step).write_text(json.dumps(found.dump()), encoding="utf-8")


def _manifest(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "rft.dev/v1alpha1",
        "kind": "RFTJob",
        "metadata": {"name": name},
        "spec": {
            "model": {"name": "HuggingFaceTB/SmolLM2-135M-Instruct"},
            "dataset": {"uri": "./rows.jsonl"},
            "graders": [
                {"name": "correct", "weight": 2, "numeric": {"field": "answer"}},
                {"name": "equation", "regex": {"pattern": r"\d+ \+ \d+ = \d+"}},
            ],
            "training": {"loraRank": 8, "batchSizeTokens": 8192},
            "sampling": {"numRollouts": 4, "maxTokens": 64},
            "storage": {"ephemeral": {}},
        },
    }


def _hostile(row: int, number: int) -> str:
    """Return a text of ``HOSTILE``, such as HTML with a script, for one of the first rows; else ""."""
    return HOSTILE[number % len(HOSTILE)] if row < HOSTILE_ROWS else ""


def _rise(step: int, steps: int) -> float:
    return 0.1 + 0.8 / (1 + math.exp(-8 * (step / max(steps, 1) - 0.4)))


def _step(step: int, steps: int) -> StepRecord:
    reward = min(1.0, max(0.0, random.gauss(_rise(step, steps), 0.06)))
    return StepRecord(
        step=step,
        reward=reward,
        reward_std=0.2,
        graders={"correct": min(1.0, reward * 1.05), "equation": min(1.0, reward * 0.9 + 0.05)},
        loss=random.gauss(0, 0.02),
        kl=0.05 * reward * random.uniform(0.8, 1.2),
        entropy=2.2 - 1.8 * reward + random.gauss(0, 0.05),
        grad_norm=random.uniform(0.1, 0.4),
        mismatch_kl=1e-4 * random.random(),
        truncated_fraction=max(0.0, 0.3 - 0.3 * reward),
        zero_variance_fraction=min(1.0, 0.2 + reward / 3),
        completion_tokens=40 - 20 * reward + random.gauss(0, 2),
        tokens_per_second=900.0,
        step_seconds=9.5,
        phases={"rollout": 5.0, "grade": 0.3, "update": 3.6, "publish": 0.2},
    )


def _status(records: list[StepRecord], steps: int) -> dict[str, Any]:
    def scores(base: float, tuned: float) -> dict[str, Any]:
        difference = {"mean": tuned - base, "low": tuned - base - 0.06, "high": tuned - base + 0.06}
        return {"base": base, "tuned": tuned, "difference": difference}

    return {
        "phase": "Succeeded",
        "message": "Every epoch is trained.",
        "progress": {"step": steps, "totalSteps": steps, "totalStepsEstimated": False, "attempt": 1},
        "reward": {"latest": records[-1].reward, "best": max(each.reward or 0 for each in records)},
        "evaluation": {
            "rows": ROWS,
            "step": steps,
            "reward": scores(0.11, 0.9),
            "graders": {"correct": scores(0.05, 0.88), "equation": scores(0.2, 0.95)},
        },
        "metrics": {"entropy": records[-1].entropy, "stepSeconds": 9.5},
        "recommendations": [
            {
                "rule": "completions-cut",
                "parameter": "spec.sampling.maxTokens",
                "message": "12% of the last step's completions were cut at maxTokens 64: raise it to 128",
            }
        ],
        "usage": {
            "gpuSeconds": 9.5 * steps,
            "promptTokens": 4_100 * steps,
            "completionTokens": 3_700 * steps,
        },
        "plan": {
            "gpus": 1,
            "device": "cuda",
            "accelerator": "H100",
            "cpu": "8",
            "memory": "48Gi",
            "estimate": {
                "steps": steps,
                "secondsPerStep": 8.7,
                "promptTokens": 4_000 * steps,
                "completionTokens": 4_100 * steps,
                "gpuHours": 8.7 * steps / 3600,
            },
            "notes": ["one GPU holds the sampler and the trainer"],
        },
        "output": {"folder": "/runs/team/long", "adapter": "/runs/team/long/adapter"},
    }


def _rollouts(step: int) -> list[RolloutRecord]:
    return [
        RolloutRecord(
            step=step,
            line=line,
            messages=[
                {"role": "system", "content": "You answer in one line."},
                {"role": "user", "content": f"What is {line} + 30? {_hostile(line, line + 2)}"},
            ],
            fields={"answer": line + 30},
            completion=f"{line} + 30 = {line + 30}. {_hostile(line, line + number)}",
            reward=number / 4,
            graders={"correct": number / 4, "equation": 1.0},
            advantage=number / 2 - 1,
            finish_reason="stop",
            tokens=12,
        )
        for line in range(1, 9)
        for number in range(4)
    ]


def _evaluation(step: int, steps: int) -> EvaluationRecord:
    rewards = [min(1.0, max(0.0, random.gauss(_rise(step, steps), 0.1))) for _ in range(ROWS)]
    return EvaluationRecord(
        step=step,
        lines=list(range(1, ROWS + 1)),
        reward=list(rewards),
        graders={"correct": list(rewards)},
        completions=[f"The sum is {row}. {_hostile(row, row)}" for row in range(ROWS)],
        truncated=0.0,
        rows=[f"{row:064x}" for row in range(ROWS)],
    )


if __name__ == "__main__":
    main()
