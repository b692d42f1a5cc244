"""The runs that are compared: their configuration, their start, and the files that they write."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import torch

from rft_api.effective import effective
from rft_api.job import RFTJobSpec
from rft_run.config import GRADER_CONFIG_FILE, JobIdentity, RunConfig, grader_config
from rft_trainer import training_state
from rft_trainer.runtime import models
from tests.trainer.loop_support import COMPARED

ROOT = Path(__file__).parents[2]
TRAINER = "tests.resume.trainer"
CONTEXT = 128
GAME = """
class Environment:
    def reset(self, answer, **row):
        self.answer, self.tries, self.reward = int(answer), 0, 0.0

    def reply(self, text):
        self.tries += 1
        digits = "".join(c for c in text if c.isdigit())[:4]
        if not digits:
            return "Say a number."
        self.reward = 1 / (1 + abs(int(digits) - self.answer) / 10)
        if self.tries == 2 or int(digits) == self.answer:
            return None
        return "More." if int(digits) < self.answer else "Less."

    def get_reward(self):
        return self.reward
"""
"""An environment of two turns. Replies and reward depend only on the row and on the model's answers."""


def spec(model: Path, steps: int, game: bool) -> dict[str, Any]:
    """Return a spec of ``steps`` short steps, in deterministic mode. Every checkpoint is kept.

    If ``game`` is true, rollouts have an environment and no grader.
    """
    scored: dict[str, Any] = {"graders": [{"name": "right", "numeric": {}}]}
    if game:
        environment = {"python": {"inline": GAME}, "maxTurns": 2, "concurrency": 8}
        scored = {"graders": [], "environment": environment}
    return {
        **scored,
        "model": {"name": str(model)},
        "dataset": {"uri": "./rows.jsonl"},
        "training": {
            "batchSizeTokens": 1024,
            "maxContextLength": CONTEXT,
            "learningRate": 5e-4,
            "loraRank": 8,
            "seed": 3,
            "deterministic": True,
        },
        "sampling": {"engine": "vllm", "maxTokens": 24, "temperature": 1.0, "numRollouts": 8},
        "evaluation": {"fraction": 0.1},
        "preflight": "off",
        "checkpoint": {"everySteps": 1, "keep": 100},
        "stop": {"maxSteps": steps},
        "resources": {"gpus": 0},
        "storage": {"ephemeral": {}},
    }


def prepare(folder: Path, steps: int, game: bool) -> Path:
    """Write the rows and the configuration of a run into ``folder``. Return the configuration's path.

    If ``game`` is true, write also the configuration of the environment's process, as for a grader container.
    """
    folder.mkdir(parents=True)
    rows = [
        {"messages": [{"role": "user", "content": f"What is {a} + {b}?"}], "answer": str(a + b)}
        for a in range(10, 26)
        for b in range(10, 25)
    ]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    parsed = RFTJobSpec.model_validate(spec(models.resolve(models.EXAMPLE_MODEL), steps, game))
    if game:
        hosted = grader_config(parsed, {}).model_dump_json(by_alias=True, exclude_none=True)
        (folder / GRADER_CONFIG_FILE).write_text(hosted)
    config = RunConfig(
        job=JobIdentity(name="resumed", namespace="default", uid="uid"),
        spec=parsed,
        effective=effective(parsed, "uid", CONTEXT),
        run_dir=str(folder),
        dataset_path=str(folder / "rows.jsonl"),
        device="cpu",
        grader_socket=str(_socket(folder)) if game else None,
    )
    path = folder / "config.json"
    path.write_text(config.model_dump_json(by_alias=True, exclude_none=True))
    return path


def start(config: Path, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start the trainer of an attempt of the run."""
    return _start([TRAINER, "--config", str(config)], log)


def start_environment(folder: Path, log: IO[bytes]) -> subprocess.Popen[bytes] | None:
    """Start the process of the environment, as in a grader container. Return None for a run without one.

    It connects to the trainer's socket. It ends when the trainer ends.
    """
    settings = folder / GRADER_CONFIG_FILE
    if not settings.exists():
        return None
    return _start(["rft_graders.serve", "--socket", str(_socket(folder)), "--config", str(settings)], log)


def _socket(folder: Path) -> Path:
    return folder / "graders.sock"


def _start(module: list[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    path = os.pathsep.join(map(str, (ROOT, ROOT / "operator", ROOT / "trainer-image")))
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.Popen([sys.executable, "-m", *module], stdout=log, stderr=log, env=environment)


def checkpoints(folder: Path) -> dict[int, Path]:
    """Return the existing checkpoints by step."""
    found = (folder / "checkpoints").glob("step-*")
    return {int(path.name.removeprefix("step-")): path for path in sorted(found)}


def digest(checkpoint: Path) -> dict[str, str]:
    """Return a hash of each part of a checkpoint, by the name of the part.

    If a file of the checkpoint is incomplete, an error is raised.
    """
    saved = asdict(training_state.read(checkpoint))
    state = json.loads((checkpoint / "state.json").read_text())
    # Two entries may differ: the GPU time, and the adapter version, because a killed run may skip a version.
    del state["gpu_seconds"], state["adapter_version"]
    weights = (checkpoint / "adapter" / "adapter_model.safetensors").read_bytes()
    parts = {name: _flat(saved[name]) for name in ("adapter", "optimizer", "schedule", "torch_rng")}
    return {
        "weights": _hash(weights),
        **{name: _hash(repr(part).encode()) for name, part in parts.items()},
        **{f"state.{name}": json.dumps(value, sort_keys=True) for name, value in state.items()},
    }


def _flat(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return _hash(value.contiguous().numpy().tobytes())
    if isinstance(value, dict):
        return {key: _flat(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_flat(part) for part in value]
    return value


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def left(folder: Path) -> dict[str, Any]:
    """Return the results of an ended run that are compared with those of another run."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    tokens = {path.name: json.loads(path.read_text()) for path in (folder / "rollouts").glob("tokens-*")}
    return {
        "tokens": tokens,
        **{name: [row[name] for row in rows] for name in COMPARED},
        "adapter": _hash((folder / "adapter" / "adapter_model.safetensors").read_bytes()),
    }
