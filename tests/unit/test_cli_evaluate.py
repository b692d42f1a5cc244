"""rft evaluate: how it calls the trainer, what it shows, and that it leaves no process or file.

A fake trainer replaces the trainer, and writes the same files. tests/trainer tests the trainer itself.
"""

import json
import os
import signal
import tempfile
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from rft_api.effective import effective
from rft_cli.local.manifest import load
from rft_cli.local.trainer import ProgressEvent
from rft_cli.main import app
from rft_cli.render.progress import ProgressView
from rft_run.config import JobIdentity, RunConfig
from rft_run.folder import RunFolder, adapter_config_of
from rft_run.rollouts import read_rollouts
from rft_run.state import RunState
from tests.unit.checkpoint_support import write_adapter, write_checkpoint
from tests.unit.trainer_support import fake_trainer

TRAINER = """
import argparse, json, os, signal, sys, time
from pathlib import Path
import zstandard

parser = argparse.ArgumentParser()
parser.add_argument("--config", type=Path)
parser.add_argument("--evaluate", action="store_true")
for name in ("--adapter", "--step", "--limit"):
    parser.add_argument(name)
given = parser.parse_args()
config = json.loads(given.config.read_text())
folder = Path(config["runDir"])
Path(os.environ["FAKE_ASKED"]).write_text(json.dumps({"argv": sys.argv[1:], "config": config}))
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))

def say(**event):
    print(json.dumps(event), flush=True)

def write(step, rewards):
    name = f"step-{step:06d}"
    body = {"step": step, "lines": [1, 2], "reward": rewards, "graders": {"number": rewards},
            "completions": ["a", "b"], "truncated": 0.5, "rows": ["x", "y"]}
    (folder / "evaluation").mkdir(exist_ok=True)
    (folder / "evaluation" / f"{name}.json").write_text(json.dumps(body))
    lines = [{"step": step, "line": n + 1, "completion": "ab"[n], "reward": rewards[n],
              "graders": {"number": rewards[n]}, "errors": {"number": "no number"} if n else {}}
             for n in range(2)]
    content = "".join(json.dumps(line) + "\\n" for line in lines).encode()
    (folder / "rollouts").mkdir(exist_ok=True)
    (folder / "rollouts" / f"{name}.jsonl.zst").write_bytes(zstandard.ZstdCompressor().compress(content))

say(event="stage", stage="evaluatingBase")
while os.environ.get("FAKE_WAITS") and not stopped:
    time.sleep(0.01)
if stopped:
    sys.exit(75)
if message := os.environ.get("FAKE_MESSAGE"):
    say(event="end", exitCode=11, reason="DataError", message=message)
    sys.exit(11)
write(0, [0.25, 0.75])
if given.adapter:
    write(int(given.step), [1.0, 0.5])
    scores = {"base": 0.5, "tuned": 0.75, "difference": {"mean": 0.25, "low": -0.25, "high": 0.75}}
    result = {"rows": 2, "step": int(given.step), "reward": scores, "graders": {"number": scores}}
    (folder / "status.yaml").write_text(json.dumps({"evaluation": result}))
say(event="end", exitCode=0, reason="Completed", message="")
"""
JOB = """
apiVersion: rft.dev/v1alpha1
kind: RFTJob
metadata: {name: sums}
spec:
  model: {name: Qwen/Qwen2.5-0.5B-Instruct, revision: v1}
  dataset: {uri: ./train.jsonl, columns: {prompt: question}}
  graders: [{name: number, numeric: {}}]
  training: {seed: 7}
  tracking: {wandb: {project: p, secretRef: {name: s, key: k}}}
  output: {hub: {repository: team/sums}}
  storage: {ephemeral: {}}
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of a manifest. The child process of the command imports a fake ``rft_trainer``."""
    fake_trainer(tmp_path, monkeypatch, TRAINER)
    monkeypatch.setenv("FAKE_ASKED", str(tmp_path / "asked.json"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    for name in ("train.jsonl", "own.jsonl"):
        (tmp_path / name).write_text('{"question": "1+1", "answer": 2}\n')
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return path


@pytest.fixture
def finished(job: Path) -> RunFolder:
    """Return the folder of a finished run of the job, with checkpoints of steps 5 and 10."""
    run = RunFolder(job.parent / "run")
    for step in (5, 10):
        write_checkpoint(run, step, RunState(step=step, best_step=5, best_reward=0.9))
    write_adapter(run.adapter)
    spec = load(job).job.spec
    config = RunConfig(
        job=JobIdentity(name="sums", namespace="team", uid="the-uid"),
        spec=spec,
        effective=effective(spec, "the-uid", 128),
        run_dir=str(run.path),
        dataset_path=str(job.parent / "train.jsonl"),
    )
    run.config.write_text(json.dumps(config.dump()))
    run.metrics.write_text(json.dumps({"step": 12, "reward": 0.5}) + "\n")
    run.rendering.write_text('{"moment":"2024-05-01T00:00:00"}')
    return run


def evaluate(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def asked(job: Path) -> dict[str, Any]:
    """Return the arguments and the configuration that the trainer got."""
    found: dict[str, Any] = json.loads((job.parent / "asked.json").read_text())
    return found


def left(job: Path) -> list[Path]:
    """Return the files that the command left in the folder for temporary files."""
    return list((job.parent / "tmp").iterdir())


def test_a_manifest_s_starting_policy_is_scored_and_no_file_stays(job: Path) -> None:
    result = evaluate(job, "--limit", 2)
    assert result.exit_code == 0, result.output
    assert "Starting policy: 2 rows, 1 completion of each" in result.stdout
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["reward", "0.500", "0.250", "to", "0.750", "-"] in lines
    assert ["number", "0.500", "0.250", "to", "0.750", "1"] in lines
    assert "truncated at maxTokens: 50.0% of the completions" in result.stdout
    assert "difference" not in result.stdout
    argv, config = asked(job)["argv"], asked(job)["config"]
    assert argv[2:] == ["--evaluate", "--limit", "2"]
    assert config["datasetPath"] == str(job.parent / "train.jsonl")
    assert config["effective"]["seed"] == 7
    assert not {"tracking", "output"} & config["spec"].keys()
    assert left(job) == []


def test_it_says_first_whom_it_contacts_and_nothing_of_it_is_on_standard_output(job: Path) -> None:
    result = evaluate(job)
    said = result.stderr.splitlines()
    assert said[0].startswith("evaluating sums on ")
    assert said[1].startswith("contacts https://huggingface.co (spec.model.name):")
    assert "wandb" not in result.output
    assert "contacts" not in result.stdout
    assert "which writes" not in result.stderr  # an evaluation pushes nothing, so it needs no --push-to


def test_a_token_for_a_strange_server_is_refused_and_nothing_is_written(
    job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RFT_SECRET_JUDGE_API_KEY", "s3cr3t")
    judge = "{url: 'https://evil.example/v1', model: m, prompt: '{completion}',"
    judge += " secretRef: {name: s, key: api-key}}"
    job.write_text(JOB.replace("{name: number, numeric: {}}", f"{{name: judge, model: {judge}}}"))
    result = evaluate(job, "--output", job.parent / "out")
    assert result.exit_code == 1
    assert "this machine would send RFT_SECRET_JUDGE_API_KEY to https://evil.example" in result.stderr
    assert not (job.parent / "out").exists()
    assert not (job.parent / "asked.json").exists()


def test_own_rows_replace_the_held_out_ones_and_have_the_columns_of_the_dataset(job: Path) -> None:
    (job.parent / "train.jsonl").unlink()
    assert evaluate(job, "--rows", job.parent / "own.jsonl").exit_code == 0
    config = asked(job)["config"]
    assert config["evaluationPath"] == str(job.parent / "own.jsonl")
    assert config["spec"]["evaluation"]["dataset"] == {
        "columns": {"prompt": "question"}, "uri": (job.parent / "own.jsonl").as_uri(),
    }  # fmt: skip


def test_another_model_and_an_adapter_replace_those_of_the_job(job: Path) -> None:
    write_adapter(job.parent / "adapter")
    assert evaluate(job, "--model", "org/other-0.5B", "--adapter", job.parent / "adapter").exit_code == 0
    spec = asked(job)["config"]["spec"]
    assert spec["model"] == {"name": "org/other-0.5B", "adapter": {"path": str(job.parent / "adapter")}}
    assert spec["training"]["loraTargets"] == "all-linear"
    assert "--adapter" not in asked(job)["argv"]


def test_samples_set_the_number_of_completions_of_each_row(job: Path) -> None:
    job.write_text(JOB + "  evaluation: {temperature: 1.0}\n")
    assert evaluate(job, "--samples", 4).exit_code == 0
    assert asked(job)["config"]["spec"]["evaluation"]["samples"] == 4
    result = evaluate(job, "--samples", 40)
    assert result.exit_code == 1
    assert "spec.evaluation.samples: 40 is out of range; allowed is 1 to 16" in result.stderr


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--samples", "4"], 1, "--samples 4: spec.evaluation.temperature is 0"),
        (["--step", "5"], 1, "--step 5: chooses a checkpoint of a run, and"),
        (["--best"], 1, "--best: chooses a checkpoint of a run, and"),
        (["--rows", "none.jsonl"], 2, "none.jsonl is not a file; name one that exists"),
        (["--adapter", "none"], 2, "--adapter: none is not a folder; name one that exists"),
        (
            ["--grader", "number=x.py"],
            2,
            "--grader number: no grader of this name has its code",
        ),
        (["--rows", "own.jsonl", "--dataset", "train.jsonl"], 1, "--dataset train.jsonl: --rows is given"),
        (["--output", "."], 1, "--output .: exists already; name another folder"),
    ],
)
def test_options_that_cannot_be_used_are_refused_with_the_correction(
    job: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], code: int, said: str
) -> None:
    monkeypatch.chdir(job.parent)
    result = evaluate(job, *options)
    assert (result.exit_code, said in result.stderr) == (code, True), result.output
    assert not (job.parent / "asked.json").exists()
    assert left(job) == []


def test_a_job_without_held_out_rows_needs_rows(job: Path) -> None:
    job.write_text(JOB + "  evaluation: {fraction: 0}\n")
    result = evaluate(job)
    assert result.exit_code == 1
    assert "spec.evaluation.fraction: 0 holds out no rows" in result.stderr
    assert "--rows FILE" in result.stderr
    assert evaluate(job, "--rows", job.parent / "own.jsonl").exit_code == 0


def test_a_run_s_base_and_tuned_policy_are_compared_on_the_same_rows(job: Path, finished: RunFolder) -> None:
    body = json.loads(adapter_config_of(finished.adapter).read_text())
    adapter_config_of(finished.adapter).write_text(json.dumps({**body, "revision": "a" * 40}))
    result = evaluate(finished.path, "--output", job.parent / "out")
    assert result.exit_code == 0, result.output
    assert "Starting policy: 2 rows" in result.stdout
    assert "Tuned policy, step 12: 2 rows" in result.stdout
    assert "Held-out evaluation: 2 rows, tuned at step 12" in result.stdout
    assert "-0.250 to +0.750" in result.stdout
    assert "no clear difference" in result.stdout
    argv, config = asked(job)["argv"], asked(job)["config"]
    assert argv[2:] == ["--evaluate", "--adapter", str(finished.adapter), "--step", "12"]
    assert config["effective"] == json.loads(finished.config.read_text())["effective"]
    assert config["spec"]["model"]["revision"] == "a" * 40
    out = RunFolder(job.parent / "out")
    assert out.rendering.read_text() == finished.rendering.read_text()
    assert out.evaluated_steps() == out.steps_with_rollouts() == [0, 12]
    assert [rollout.reward for rollout in read_rollouts(out.rollouts_of(12))] == [1.0, 0.5]
    shown = CliRunner().invoke(app, ["samples", str(out.path), "--step", "0", "-o", "json"])
    assert [rollout["reward"] for rollout in json.loads(shown.stdout)] == [0.25, 0.75]


@pytest.mark.parametrize(("options", "step"), [(["--step", "10"], 10), (["--best"], 5)])
def test_an_earlier_checkpoint_of_a_run_is_chosen_as_for_serving(
    job: Path, finished: RunFolder, options: list[str], step: int
) -> None:
    assert evaluate(finished.path, *options).exit_code == 0
    adapter = finished.checkpoint_of(step) / "adapter"
    assert asked(job)["argv"][2:] == ["--evaluate", "--adapter", str(adapter), "--step", str(step)]


def test_what_the_run_read_must_be_here_or_be_named(job: Path, finished: RunFolder) -> None:
    (job.parent / "train.jsonl").unlink()
    result = evaluate(finished.path)
    assert result.exit_code == 2
    said = "train.jsonl is not a file on this machine; give the file's path with --dataset FILE"
    assert said in result.stderr
    assert evaluate(finished.path, "--dataset", job.parent / "own.jsonl").exit_code == 0
    assert asked(job)["config"]["datasetPath"] == str(job.parent / "own.jsonl")
    result = evaluate(finished.path, "--adapter", finished.adapter)
    assert result.exit_code == 1
    assert "is a run's folder, whose own adapter is evaluated" in result.stderr
    result = evaluate(finished.adapter)
    assert result.exit_code == 2
    assert "has no run.json" in result.stderr


def test_a_run_never_continues_in_the_folder_of_an_evaluation(job: Path, finished: RunFolder) -> None:
    """Otherwise the run would use the evaluation's scores as its own."""
    assert evaluate(finished.path, "--output", job.parent / "out").exit_code == 0
    command = ["run", str(job), "--output", str(job.parent / "out"), "--push-to", "hf://team/sums"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert 'metadata.name: was "sums-evaluation", is now "sums"' in result.stderr


def test_the_results_as_json(job: Path, finished: RunFolder) -> None:
    result = evaluate(finished.path, "-o", "json")
    body = json.loads(result.stdout)
    base, tuned = body["policies"]
    assert (base["step"], base["adapter"]) == (0, None)
    assert (tuned["step"], tuned["adapter"]) == (12, str(finished.adapter))
    assert tuned["reward"] == {"mean": 0.75, "low": 0.5, "high": 1.0}
    assert tuned["graders"]["number"] == tuned["reward"]
    assert (tuned["rows"], tuned["completions"], tuned["truncated"]) == (2, 2, 0.5)
    assert tuned["errors"] == {"number": 1}
    assert body["comparison"]["reward"]["difference"] == {"mean": 0.25, "low": -0.25, "high": 0.75}
    assert "comparison" not in json.loads(evaluate(job, "-o", "json").stdout)


def test_a_failure_is_said_with_its_exit_code_and_leaves_nothing(
    job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_MESSAGE", "line 3: has no messages")
    result = evaluate(job, "--output", job.parent / "out")
    assert result.exit_code == 11
    assert "line 3: has no messages" in result.stderr
    assert "error: exit code 11: the rows of the dataset cannot be used" in result.stderr
    assert not (job.parent / "out").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_trainer_and_leaves_nothing(
    job: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setenv("FAKE_WAITS", "for a signal")
    show = ProgressView.show

    def shown(self: ProgressView, event: ProgressEvent) -> None:
        show(self, event)
        os.kill(os.getpid(), number)

    monkeypatch.setattr(ProgressView, "show", shown)
    before = signal.getsignal(signal.SIGTERM)
    result = evaluate(job, "--output", job.parent / "out")
    assert result.exit_code == 75
    assert "stopping: waiting for the sampler to end" in result.stderr
    assert "stopped: nothing was evaluated" in result.stderr
    assert not (job.parent / "out").exists()
    assert left(job) == []
    assert signal.getsignal(signal.SIGTERM) is before
