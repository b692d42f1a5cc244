"""Runs the whole training loop with a small model, for tests that compare two runs."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rft_api.effective import effective
from rft_api.job import RFTJobSpec
from rft_run.config import JobIdentity, RunConfig
from rft_trainer.loop import Run
from rft_trainer.monitors.progress import Events
from rft_trainer.monitors.report import Reporter

COMPARED = ("step", "reward", "loss", "gradNorm", "kl", "entropy", "completionTokens", "learningRate")


def config(model: Path, run_dir: Path, **training: Any) -> RunConfig:
    run_dir.mkdir(parents=True, exist_ok=True)
    rows = [
        {"messages": [{"role": "user", "content": f"{a}+{b}"}], "answer": str(a)}
        for a in range(10)
        for b in range(7)
    ]
    (run_dir / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    spec = RFTJobSpec.model_validate(
        {
            "model": {"name": str(model)},
            "dataset": {"uri": "./rows.jsonl"},
            "graders": [{"name": "exact", "exactMatch": {}}],
            "training": {"batchSizeTokens": 1024, "learningRate": 5e-4, "seed": 3, **training},
            "sampling": {"engine": "transformers", "maxTokens": 16, "temperature": 1.0, "numRollouts": 8},
            "checkpoint": {"everySteps": 100},
            "stop": {"maxSteps": 3},
            "storage": {"ephemeral": {}},
        }
    )
    return RunConfig(
        job=JobIdentity(name="tiny", namespace="default", uid="uid"),
        spec=spec,
        effective=effective(spec, "uid", 128),
        run_dir=str(run_dir),
        dataset_path=str(run_dir / "rows.jsonl"),
    )


def with_spec(config: RunConfig, **parts: Any) -> RunConfig:
    """Return a copy of the configuration. ``parts`` replace fields of its spec."""
    spec = RFTJobSpec.model_validate({**config.spec.model_dump(by_alias=True, exclude_none=True), **parts})
    return config.model_copy(update={"spec": spec, "effective": effective(spec, "uid", 128)})


def rewarded(model: Path, run_dir: Path, **training: Any) -> RunConfig:
    """Return a configuration in which a completion gets reward 1 if it begins with a digit, else 0."""
    return with_spec(
        config(model, run_dir, **training), graders=[{"name": "digit", "regex": {"pattern": "^[0-9]"}}]
    )


def run(config: RunConfig, should_stop: Callable[[], bool] = lambda: False) -> Run:
    with Reporter(config) as reporter:
        attempt = Run(config, reporter, Events(io.StringIO()), should_stop)
        attempt.train()
    return attempt
