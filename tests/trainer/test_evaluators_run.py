"""``rft run`` can use evaluators written for other libraries as graders, without changes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

from rft_run.folder import RunFolder
from rft_run.rollouts import read_rollouts
from tests.trainer import evaluators

ROOT = Path(__file__).parents[2]
EVALUATORS = {
    "trl": (evaluators.TRL_ASYNC, "async_reward"),
    "trl-object": (evaluators.TRL_OBJECT, "scaled"),
    "openai": (evaluators.OPENAI, "grade"),
    "eval-protocol": (evaluators.EVAL_PROTOCOL, "evaluate"),
    "verl": (evaluators.VERL, "compute_score"),
    "verl-options": (evaluators.VERL_OPTIONS, "compute_score"),
    "verl-batch": (evaluators.VERL_BATCH, "compute_score_batched"),
}
"""For each grader, its source and the name of its function.

Each function returns 1 if a completion ends with the answer, else 0.
"""


def row(a: int, b: int) -> dict[str, object]:
    return {
        "messages": [{"role": "user", "content": f"{a}+{b}"}],
        "answer": str(a),
        "ground_truth": str(a),
        "data_source": "arithmetic",
        "extra_info": {"index": 7},
        "level": "easy",
    }


def test_a_run_of_the_command_line_pays_what_each_evaluator_returns(
    character_model: Path, tmp_path: Path
) -> None:
    rows = [row(a, b) for a in range(10) for b in range(7)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    flags: list[str] = []
    for name, (source, _) in EVALUATORS.items():
        (tmp_path / f"{name}.py").write_text(source)
        flags += ["--grader", f"{name}={tmp_path / name}.py"]
    job = {
        "apiVersion": "rft.dev/v1alpha1",
        "kind": "RFTJob",
        "metadata": {"name": "evaluators"},
        "spec": {
            "model": {"name": str(character_model)},
            "dataset": {"uri": str(tmp_path / "rows.jsonl")},
            "graders": [
                {"name": name, "python": {"configMap": {"name": "code", "key": "x.py"}, "function": function}}
                for name, (_, function) in EVALUATORS.items()
            ],
            "training": {"batchSizeTokens": 1024, "seed": 3},
            "sampling": {"engine": "transformers", "maxTokens": 16, "temperature": 1.0, "numRollouts": 4},
            "stop": {"maxSteps": 1},
            "preflight": "off",
            "resources": {"accelerator": {"name": "cpu"}},
            "storage": {"ephemeral": {}},
        },
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT / 'trainer-image'}"}
    command = [str(Path(sys.executable).parent / "rft"), "run", "job.yaml", "--output", "out", *flags]
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]
    rollouts = read_rollouts(RunFolder(tmp_path / "out").rollouts_of(1))
    earned = [float(one.completion.endswith(str(one.fields["answer"]))) for one in rollouts]
    assert set(earned) == {0.0, 1.0}
    for one, right in zip(rollouts, earned, strict=True):
        assert one.errors == {}
        assert one.graders == dict.fromkeys(EVALUATORS, right)
