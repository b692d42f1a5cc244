"""Each of the nine parameters that ``rft explain`` lists changes requests to vLLM, steps or optimizer."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from rft_advice.run import CUT
from rft_api.effective import effective
from rft_api.validation import parse
from rft_run.config import JobIdentity, RunConfig
from rft_trainer import preflight, training_state
from tests.manifests import manifest
from tests.trainer.conftest import CONTEXT_LENGTH
from tests.trainer.record_requests import RECORD_FILE

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
ROWS = 20
HELD_OUT = 4

# Changes of the manifest. Each test also has the top-k and top-p that vLLM must receive.
DEFAULTS: dict[str, Any] = {}
ALL_CHANGED: dict[str, Any] = {
    "training": {"learningRate": 3e-4, "epochs": 2, "loraRank": 16, "batchSizeTokens": 1024},
    "sampling": {"temperature": 1.3, "topP": 0.9, "topK": 0, "numRollouts": 3, "maxTokens": 24},
}
TOP_P_ZERO: dict[str, Any] = {
    "training": {"learningRate": 1e-5, "loraRank": 4, "batchSizeTokens": 1536},
    "sampling": {"temperature": 0.1, "topP": 0, "topK": 0, "numRollouts": 2, "maxTokens": 16},
}


def run_config(folder: Path, model: Path, changes: dict[str, Any]) -> RunConfig:
    document = manifest(
        model={"name": str(model)},
        **changes,
        checkpoint={"everySteps": 1},
        # A separate evaluation dataset, because these rows are too few for a fraction: it would hold out 32
        # rows, and need as many rows for training.
        evaluation={"dataset": {"uri": "./held-out.jsonl"}},
    )
    spec = parse(document).spec
    rows = [
        {"messages": [{"role": "user", "content": f"{a}+{a * 7 % 50}"}], "answer": a + a * 7 % 50}
        for a in range(10, 10 + ROWS)
    ]
    dataset = folder / "rows.jsonl"
    dataset.write_text("\n".join(map(json.dumps, rows[HELD_OUT:])))
    evaluation = folder / "held-out.jsonl"
    evaluation.write_text("\n".join(map(json.dumps, rows[:HELD_OUT])))
    return RunConfig(
        job=JobIdentity(name="nine", namespace="default", uid="nine"),
        spec=spec,
        effective=effective(spec, "nine", CONTEXT_LENGTH),
        run_dir=str(folder / "run"),
        dataset_path=str(dataset),
        evaluation_path=str(evaluation),
    )


@pytest.mark.parametrize(
    ("changes", "sent"),
    [
        pytest.param(DEFAULTS, {"top_k": 40, "top_p": 1.0}, id="defaults", marks=pytest.mark.long),
        pytest.param(ALL_CHANGED, {"top_k": 0, "top_p": 0.9}, id="all-nine-changed-and-top-k-off"),
        pytest.param(TOP_P_ZERO, {"top_k": 1, "top_p": 1.0}, id="top-p-zero-is-the-most-probable-token"),
    ],
)
def test_the_nine_parameters_have_their_effect(
    tmp_path: Path, character_model: Path, changes: dict[str, Any], sent: dict[str, float]
) -> None:
    config = run_config(tmp_path, character_model, changes)
    (tmp_path / "run").mkdir()
    (tmp_path / "run.json").write_text(json.dumps(config.dump()))
    received_file = tmp_path / "received.jsonl"
    command = [sys.executable, "-m", "tests.trainer.recorded_run", "--config", str(tmp_path / "run.json")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), RECORD_FILE: str(received_file)}
    subprocess.run(command, cwd=ROOT, env=environment, check=True)

    training, sampling = config.spec.training, config.spec.sampling
    posts = [json.loads(line) for line in received_file.read_text().splitlines()]
    completions = [post["body"] for post in posts if post["path"] == "/v1/completions"]
    rollouts = [body for body in completions if body["temperature"] > 0]
    greedy = [body for body in completions if body["temperature"] == 0]

    # Temperature, top-p, top-k and max tokens: in every rollout request.
    for body in rollouts:
        assert body["temperature"] == sampling.temperature
        assert body["max_tokens"] == sampling.max_tokens
        assert {key: body[key] for key in sent} == sent
        assert body["n"] == 1
    assert len({body["seed"] for body in rollouts}) == len(rollouts)
    for body in greedy:
        assert "top_k" not in body
        assert "top_p" not in body

    # Rollouts and epochs: each epoch samples every training row numRollouts times. The preflight before the
    # first step does the same once more, with the settings of the training.
    asked = Counter(tuple(body["prompt"]) for body in rollouts)
    held_out = {tuple(body["prompt"]) for body in greedy}
    assert set(asked.values()) == {sampling.num_rollouts * (training.epochs + 1)}
    assert len(asked) <= preflight.PROMPTS
    assert len(held_out) == HELD_OUT
    assert len(asked) == ROWS - HELD_OUT
    assert not held_out & set(asked)

    # Batch size: the first step has as many groups as fit into the token budget.
    steps = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    first = steps[0]["groups"]
    expected = sampling.max_tokens / 2
    group_tokens = [sampling.num_rollouts * (len(prompt) + expected) for prompt in asked]
    assert first * min(group_tokens) <= training.batch_size_tokens
    assert first == len(asked) or (first + 1) * max(group_tokens) > training.batch_size_tokens

    # Learning rate and rank: in the optimizer's state.
    newest = max((tmp_path / "run" / "checkpoints").iterdir())
    state = training_state.read(newest).optimizer
    (group,) = [g for g in state["param_groups"] if g["params"]]
    assert group["lr"] == pytest.approx(training.learning_rate)
    assert tuple(group["betas"]) == (0.9, 0.999)
    assert {int(entry["step"]) for entry in state["state"].values()} == {len(steps)}
    assert {min(entry["exp_avg"].shape) for entry in state["state"].values()} == {training.lora_rank}

    adapter = json.loads((tmp_path / "run" / "adapter" / "adapter_config.json").read_text())
    assert adapter["r"] == training.lora_rank

    # Max tokens again: if many completions are cut off, as with 16, the run's advice says what to raise.
    status = yaml.safe_load((tmp_path / "run" / "status.yaml").read_text())
    advice = {one["rule"]: one for one in status.get("recommendations") or []}
    cut = status["metrics"]["truncatedFraction"] >= CUT
    assert cut or sampling.max_tokens > 16
    assert ("completions-cut" in advice) == cut
    if cut:
        assert advice["completions-cut"]["parameter"] == "spec.sampling.maxTokens"
        assert f"maxTokens {sampling.max_tokens}: raise it" in advice["completions-cut"]["message"]
