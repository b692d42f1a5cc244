"""rft run: how it starts the trainer, resumes a run, refuses a manifest and stops.

A fake trainer replaces the trainer, and sends the same events. tests/trainer tests the trainer itself.
"""

import fcntl
import json
import os
import signal
from pathlib import Path

import matplotlib.backends.backend_agg  # noqa: F401 - imported here, outside of the tests' time
import pytest
from typer.testing import CliRunner, Result

from rft_cli.local import device, process
from rft_cli.local.trainer import ProgressEvent
from rft_cli.main import app
from rft_cli.render.png import write_png
from rft_cli.render.progress import ProgressView
from rft_run.config import RunConfig
from tests.unit.trainer_support import fake_trainer

TRAINER = """
import json, os, signal, sys, time
from pathlib import Path

config = json.loads(Path(sys.argv[sys.argv.index("--config") + 1]).read_text())
folder = Path(config["runDir"])
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))

def say(**event):
    print(json.dumps(event), flush=True)

print("a line that is no event", flush=True)
say(event="of another release")
print("on stderr", file=sys.stderr, flush=True)
say(event="stage", stage="training")
say(event="step", step=1, totalSteps=2, totalStepsEstimated=False, reward=0.25,
    tokensPerSecond=80.0, etaSeconds=61)
with (folder / "metrics.jsonl").open("a") as file:
    file.write(json.dumps({"step": 1, "reward": 0.25}) + "\\n")
while os.environ.get("FAKE_WAITS") and not stopped:
    time.sleep(0.01)
if os.environ.get("FAKE_WAITS") == "for ever":
    say(event="resumed", step=0)
    time.sleep(60)
if stopped:
    sys.exit(75)
if message := os.environ.get("FAKE_MESSAGE"):
    say(event="end", exitCode=11, reason="DataError", message=message)
    sys.exit(11)
grader = {"base": 0.25, "tuned": 0.75, "difference": {"mean": 0.5, "low": 0.4, "high": 0.6}}
status = {"evaluation": {"rows": 32, "step": 2, "reward": grader, "graders": {"number": grader}},
          "output": {"adapter": str(folder / "adapter")}}
(folder / "status.yaml").write_text(json.dumps(status))
code = int(os.environ.get("FAKE_CODE", "0"))
if code == 0:
    say(event="end", exitCode=0, reason="Completed", message="")
sys.exit(code)
"""
JOB = """
apiVersion: v1
kind: ConfigMap
metadata: {name: rows}
data:
  train.jsonl: '{"messages": []}'
---
apiVersion: rft.dev/v1alpha1
kind: RFTJob
metadata: {name: arithmetic}
spec:
  model: {name: Qwen/Qwen2.5-0.5B-Instruct}
  dataset: {configMap: {name: rows}}
  graders: [{name: number, numeric: {}}]
  storage: {ephemeral: {}}
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of a manifest. The child process of ``rft run`` imports a fake ``rft_trainer``."""
    fake_trainer(tmp_path, monkeypatch, TRAINER)
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    # Drawing the picture of the reward curve takes a second. Only the test of the picture draws it.
    monkeypatch.setattr("rft_cli.commands.run.write_png", lambda *_: None)
    return path


def run(job: Path, *flags: str) -> Result:
    return CliRunner().invoke(app, ["run", str(job), "--output", str(job.parent / "out"), *flags])


def config(job: Path) -> RunConfig:
    return RunConfig.model_validate_json((job.parent / "out" / "run.json").read_text())


def test_a_run_ends_with_curve_evaluation_and_adapter(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rft_cli.commands.run.write_png", write_png)
    result = run(job)
    assert result.exit_code == 0, result.output
    assert "step 1/2, reward 0.250, 80 tokens/s, 1m01s left" in result.stdout
    assert "complete (Completed)" in result.stdout
    assert "Held-out evaluation: 32 rows, tuned at step 2" in result.stdout
    assert "+0.400 to +0.600" in result.stdout
    assert "scores higher" in result.stdout
    assert f"adapter: {job.parent / 'out' / 'adapter'}" in result.stdout
    assert (job.parent / "out" / "reward.png").read_bytes().startswith(b"\x89PNG")


def test_gpus_that_the_run_does_not_use_are_named_at_the_start(
    job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(device, "torch_has_cuda", lambda: False)
    said = run(job).stdout
    assert "starting arithmetic on cpu" in said
    assert "this machine has 2 GPUs, but the installed torch is a build for the CPU" in said


def test_what_is_no_event_goes_to_the_log(job: Path) -> None:
    result = run(job)
    log = (job.parent / "out" / "trainer.log").read_text()
    assert "a line that is no event" in log
    assert '{"event": "of another release"}' in log
    assert "on stderr" in log
    assert "no event" not in result.stdout
    assert "another release" not in result.stdout


def test_the_configuration_is_the_snapshot_the_trainer_reads(job: Path) -> None:
    run(job, "--seed", "7", "--max-steps", "3")
    written = config(job)
    assert written.run_dir == str(job.parent / "out")
    assert Path(written.dataset_path).read_text() == '{"messages": []}'
    assert written.effective.seed == written.spec.training.seed == 7
    assert written.spec.stop is not None
    assert written.spec.stop.max_steps == 3


def test_the_same_command_again_resumes_the_same_run(job: Path) -> None:
    first = run(job)
    uid = config(job).job.uid
    second = run(job)
    assert "starting arithmetic" in first.stdout
    assert "resuming arithmetic" in second.stdout
    assert config(job).job.uid == uid


def test_a_run_that_an_older_release_began_keeps_the_parameters_that_it_derived(job: Path) -> None:
    job.write_text(JOB.replace("  storage:", "  training: {objective: dapo}\n  storage:"))
    run(job)
    assert (config(job).effective.refill_rounds, config(job).effective.overlong_penalty) == (3, 0.5)
    path = job.parent / "out" / "run.json"
    stored = json.loads(path.read_text())
    del stored["effective"]["refillRounds"], stored["effective"]["overlongPenalty"]
    path.write_text(json.dumps(stored))
    assert run(job).exit_code == 0
    assert (config(job).effective.refill_rounds, config(job).effective.overlong_penalty) == (0, 0)


def test_a_run_stays_in_its_dtype_where_it_resumes_on_a_machine_that_is_fast_in_another(
    job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job.write_text(JOB.replace("name: org/model", "name: SmolLM2-135M"))
    for machine in ("bfloat16", "float32"):
        monkeypatch.setenv("RFT_CPU_DTYPE", machine)
        assert run(job).exit_code == 0
        plan = config(job).plan
        assert plan is not None
        assert plan.dtype == "bfloat16"


def test_a_dtype_of_the_machine_that_does_not_exist_is_refused(
    job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RFT_CPU_DTYPE", "half")
    result = run(job)
    assert result.exit_code == 1
    assert "RFT_CPU_DTYPE=half: must be one of float32, bfloat16" in result.stderr


def test_a_changed_spec_is_refused_with_every_change_and_the_fix(job: Path) -> None:
    run(job)
    before = (job.parent / "out" / "run.json").read_text()
    job.write_text(JOB + "  training: {learningRate: 2e-4}\n  sampling: {topK: 20}\n")
    result = run(job)
    assert result.exit_code == 1
    assert "spec.training.learningRate: was 0.0001, is now 0.0002" in result.stderr
    assert "spec.sampling.topK: was 40, is now 20" in result.stderr
    assert "--output" in result.stderr
    assert (job.parent / "out" / "run.json").read_text() == before


def test_changed_rows_are_another_run(job: Path) -> None:
    run(job)
    job.write_text(JOB.replace('"messages": []', '"messages": [1]'))
    result = run(job)
    assert result.exit_code == 1
    assert "content of spec.dataset" in result.stderr
    assert (job.parent / "out" / "inputs" / "train.jsonl").read_text() == '{"messages": []}'


def test_when_to_stop_may_change_between_attempts(job: Path) -> None:
    run(job, "--max-steps", "3")
    assert run(job, "--max-steps", "5").exit_code == 0


def test_a_foreign_run_json_is_not_overwritten(job: Path) -> None:
    (job.parent / "out").mkdir()
    (job.parent / "out" / "run.json").write_text('{"other": 1}')
    result = run(job)
    assert result.exit_code == 2
    assert "name a new folder with --output" in result.stderr


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("11", "the rows of the dataset cannot be used"),
        ("13", "batchSizeTokens"),
        ("1", "the trainer failed"),
    ],
)
def test_the_trainers_exit_code_is_passed_on_and_explained(
    job: Path, monkeypatch: pytest.MonkeyPatch, code: str, words: str
) -> None:
    monkeypatch.setenv("FAKE_CODE", code)
    result = run(job)
    assert result.exit_code == int(code)
    assert words in result.stderr
    assert "on stderr" in result.stderr
    assert "trainer.log" in result.stderr


def test_the_message_of_a_failure_is_shown_in_place_of_the_log(
    job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_MESSAGE", "line 3: has no messages")
    result = run(job)
    assert result.exit_code == 11
    assert "line 3: has no messages" in result.stderr
    assert "on stderr" not in result.stderr


def test_an_invalid_manifest_starts_nothing(job: Path) -> None:
    job.write_text(JOB + "  training: {epochs: 11}\n")
    result = run(job)
    assert result.exit_code == 1
    assert "spec.training.epochs: 11 is out of range; allowed is 1 to 10" in result.stderr
    assert not (job.parent / "out").exists()


@pytest.mark.parametrize("field", ["suspend", "cancel"])
def test_what_is_suspended_or_cancelled_is_not_run(job: Path, field: str) -> None:
    job.write_text(JOB.replace("ephemeral: {}", "claimTemplate: {size: 1Gi}") + f"  {field}: true\n")
    result = run(job)
    assert result.exit_code == 1
    assert f"spec.{field}: is true" in result.stderr


def press_ctrl_c_at(monkeypatch: pytest.MonkeyPatch, *events: str, times: int = 1) -> None:
    """Send SIGINT to this process after each shown event whose name is in ``events``.

    ``times`` is the number of signals after each event.
    """
    show = ProgressView.show

    def shown(self: ProgressView, event: ProgressEvent) -> None:
        show(self, event)
        if event.event in events:
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(ProgressView, "show", shown)


def test_ctrl_c_waits_for_the_trainer_and_says_what_the_same_command_does_next(
    job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_WAITS", "for a signal")
    press_ctrl_c_at(monkeypatch, "step")
    result = run(job)
    assert result.exit_code == 75
    assert "waiting for the checkpoint" in result.stdout
    assert "stopped: there is no checkpoint yet, so the same command begins again" in result.stdout


def test_a_stop_that_arrives_twice_at_once_is_one_stop(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_WAITS", "for a signal")
    press_ctrl_c_at(monkeypatch, "step", times=2)
    assert run(job).exit_code == 75


def test_a_second_ctrl_c_kills_a_trainer_that_does_not_stop(
    job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_WAITS", "for ever")
    monkeypatch.setattr(process, "SECOND_THOUGHT_SECONDS", 0.0)
    press_ctrl_c_at(monkeypatch, "step", "resumed")
    result = run(job)
    assert result.exit_code == 130
    assert "killed" in result.stderr


def test_the_handlers_of_signals_are_put_back(job: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    run(job)
    assert signal.getsignal(signal.SIGTERM) is before


def test_two_commands_never_train_into_one_folder(job: Path) -> None:
    (job.parent / "out").mkdir()
    with (job.parent / "out" / ".rft.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        result = run(job)
    assert result.exit_code == 1
    assert "another rft run or rft download uses it" in result.stderr
