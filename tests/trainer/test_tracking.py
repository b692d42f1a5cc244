"""Tracking with the real libraries, without their servers. The tests read the files of the libraries."""

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from rft_api.effective import effective
from rft_api.status import EvaluationResult, GraderEvaluation, Output, PairedDifference, Progress, RunStatus
from rft_api.validation import parse
from rft_run.config import JobIdentity, RunConfig
from rft_run.errors import ConfigurationError
from rft_run.report import Ending
from rft_run.steps import StepRecord
from rft_trainer.attempt import attempt as run_attempt
from rft_trainer.evaluate import RowScores
from rft_trainer.monitors.tracking import trackers as module
from rft_trainer.monitors.tracking.flat import hyperparameters, numbers, texts
from rft_trainer.monitors.tracking.mlflow_tracker import MAX_VALUE, limited
from rft_trainer.monitors.tracking.protocol import End, RunInfo
from rft_trainer.monitors.tracking.sender import QUEUE_LENGTH, Sender
from rft_trainer.monitors.tracking.trackers import Trackers
from rft_trainer.monitors.tracking.worker import TRIES, TrackerWorker, without_secrets
from rft_trainer.runtime import machine
from tests.manifests import manifest

UID = "0b6c3b1e-1111-4222-8333-444455556666"
KEY = "0123456789abcdef0123456789abcdef01234567"
SECRET = {"name": "keys", "key": "wandb"}
TARGETS: dict[str, dict[str, Any]] = {
    "wandb": {"project": "sums", "secretRef": SECRET},
    "mlflow": {"trackingUri": "file:", "experiment": "sums"},
    "tensorboard": {},
}
SUCCEEDED = Ending(exit_code=0, reason="Completed", message="")
PREEMPTED = Ending(exit_code=75, reason="Preempted", message="")


def needs(library: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        find_spec(library) is None,
        reason=f"{library} is not installed: pip install 'rft-operator[{library}]'",
    )


def config(folder: Path, **tracking: Any) -> RunConfig:
    spec = parse(
        manifest(
            tracking=tracking,
            template={"env": [{"name": "TOKEN", "value": "of-the-template"}]},
            dataset={"uri": "https://user:password@host/rows.jsonl"},
        )
    ).spec
    return RunConfig(
        job=JobIdentity(name="sums", namespace="team", uid=UID),
        spec=spec,
        effective=effective(spec, UID),
        run_dir=str(folder),
        dataset_path="/data/train/rows.jsonl",
    )


def record(step: int, reward: float) -> StepRecord:
    return StepRecord.model_validate({
        "step": step, "reward": reward, "graders": {"right": reward}, "kl": None, "learningRate": 1e-4,
        "stepSeconds": 2.0, "phases": {"rollout": 1.5}, "time": "2026-01-01T00:00:00Z",
    })  # fmt: skip


def scores(step: int, reward: float) -> RowScores:
    return RowScores(step, [1, 2], [reward, reward], {"right": [reward, None]}, ["4", "5"], 0.5)


def status(folder: Path, step: int, adapter: Path | None = None) -> RunStatus:
    difference = PairedDifference(mean=0.4, low=0.3, high=0.5)
    return RunStatus(
        progress=Progress(step=step),
        evaluation=EvaluationResult(
            rows=2, step=step, reward=GraderEvaluation(base=0.1, tuned=0.5, difference=difference)
        ),
        output=Output(folder=str(folder), **({} if adapter is None else {"adapter": str(adapter)})),
    )


def attempt(
    asked: RunConfig,
    rows: dict[int, float],
    ending: Ending,
    before: dict[int, float] | None = None,
    adapter: Path | None = None,
) -> None:
    """Log one attempt.

    - ``rows``: the rewards of the attempt's steps, by step.
    - ``ending``: how the attempt ends.
    - ``before``: the rewards of all steps before this attempt's first step. Without them this is the first
      attempt, which also logs the evaluation of the base model.
    - ``adapter``: the folder of the final adapter. None: there is no final adapter.
    """
    with Trackers(asked) as trackers:
        known = [record(step, reward) for step, reward in (before or {}).items()]
        trackers.start(len(known), attempt=1, records=known)
        if not known:
            trackers.evaluation(scores(0, 0.1))
        for step, reward in rows.items():
            trackers.step(record(step, reward))
        if ending is SUCCEEDED:
            trackers.evaluation(scores(max(rows), 0.5))
        trackers.finish(status(Path(asked.run_dir), max(rows), adapter), ending)


def two_attempts(asked: RunConfig) -> None:
    """Log two attempts. The first attempt makes the steps 1 to 3.

    The second attempt resumes after step 2, and makes the steps 3 and 4.
    """
    folder = Path(asked.run_dir)
    folder.mkdir(parents=True)
    adapter = folder / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    attempt(asked, {1: 0.1, 2: 0.2, 3: 0.3}, PREEMPTED)
    attempt(asked, {3: 0.35, 4: 0.4}, SUCCEEDED, {1: 0.1, 2: 0.2}, adapter)


# --- Weights & Biases ---------------------------------------------------------------------------------


@pytest.fixture
def wandb_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    for variable in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))


WANDB_HEADER, WANDB_BLOCK = 7, 32768


def wandb_chunks(data: bytes) -> Iterator[bytes]:
    """Yield the records of a file in LevelDB's log format.

    A record is stored in one or more chunks, each with a checksum, its length and its kind.
    """
    position, record = WANDB_HEADER, b""
    while position < len(data):
        left = WANDB_BLOCK - position % WANDB_BLOCK
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def wandb_records(folder: Path) -> Iterator[Any]:
    """Yield the records of all attempts, in the order in which `wandb sync` would send them."""
    messages: Any = import_module("wandb.proto.wandb_internal_pb2")

    for path in sorted((folder / "tracking" / "wandb").glob("offline-run-*/run-*.wandb")):
        for data in wandb_chunks(path.read_bytes()):
            record = messages.Record()
            record.ParseFromString(data)
            yield record


def wandb_history(records: list[Any]) -> list[dict[str, Any]]:
    return [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.WhichOneof("record_type") == "history"
    ]


@needs("wandb")
def test_wandb_gets_every_step_once_over_two_attempts_of_one_run(wandb_offline: None, tmp_path: Path) -> None:
    asked = config(tmp_path / "run", wandb=TARGETS["wandb"])
    two_attempts(asked)
    records = list(wandb_records(tmp_path / "run"))
    runs = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    assert {(run.run_id, run.project, run.display_name) for run in runs} == {(UID, "sums", "sums")}
    history = wandb_history(records)
    steps = [(line["step"], line["reward"]) for line in history if "reward" in line]
    assert steps == [(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4)]
    assert history[1]["graders/right"] == 0.1
    assert history[1]["phases/rollout"] == 1.5
    evaluations = [(line["step"], line["eval/reward"]) for line in history if "eval/reward" in line]
    assert evaluations == [(0, 0.1), (4, 0.5)]
    axes = {
        r.metric.glob_name: r.metric.step_metric for r in records if r.WhichOneof("record_type") == "metric"
    }
    assert axes["*"] == "step"


STARTED = """
import json, sys, wandb
from rft_trainer.monitors.tracking.protocol import RunInfo
from rft_trainer.monitors.tracking.wandb_tracker import WandbTracker
run = RunInfo("sums", "team", "u-1", sys.argv[1], 0, 1, 1, json.loads(sys.argv[2]), {})
WandbTracker().start(run)
print(wandb.setup().settings.base_url)
"""


@needs("wandb")
def test_a_settings_file_in_the_working_folder_does_not_name_the_server_that_gets_the_key(
    wandb_offline: None, tmp_path: Path
) -> None:
    settings = tmp_path / "wandb" / "settings"
    settings.parent.mkdir()
    settings.write_text("[default]\nbase_url = https://evil.example\n")
    target = json.dumps({"project": "sums", "uploadAdapter": False})
    ran = subprocess.run(
        [sys.executable, "-c", STARTED, "run", target],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("https://")
    assert "evil.example" not in ran.stdout


@needs("wandb")
def test_wandb_gets_all_hyperparameters_the_interval_and_the_adapter_but_no_key(
    wandb_offline: None, tmp_path: Path
) -> None:
    asked = config(tmp_path / "run", wandb=TARGETS["wandb"])
    two_attempts(asked)
    records = list(wandb_records(tmp_path / "run"))
    given = {u.key: json.loads(u.value_json) for r in records for u in r.run.config.update}
    assert given["spec"]["training"]["learningRate"] == 1e-4
    assert given["effective"] == asked.effective.dump()
    summary = {
        item.key or "/".join(item.nested_key): json.loads(item.value_json)
        for record in records
        if record.WhichOneof("record_type") == "summary"
        for item in record.summary.update
    }
    assert summary["final/evaluation/reward/difference/low"] == 0.3
    artifacts = [
        (record.request.log_artifact.artifact if record.request.HasField("log_artifact") else record.artifact)
        for record in records
        if record.WhichOneof("record_type") == "artifact" or record.request.HasField("log_artifact")
    ]
    assert [(artifact.name, artifact.type) for artifact in artifacts] == [("sums-adapter", "model")]
    written = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert not [path for path in written if KEY.encode() in path.read_bytes()]


# --- MLflow -------------------------------------------------------------------------------------------


@needs("mlflow")
def test_mlflow_gets_every_step_once_parameters_and_the_adapter_in_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    store = tmp_path / "store"
    target = TARGETS["mlflow"] | {"trackingUri": store.as_uri()}
    two_attempts(config(tmp_path / "run", mlflow=target))
    (run,) = [path.parent for path in store.glob("*/*/meta.yaml")]
    tags = {path.name: path.read_text() for path in (run / "tags").rglob("*") if path.is_file()}
    assert tags["uid"] == UID
    assert "status: 3" in (run / "meta.yaml").read_text()  # FINISHED
    points = [line.split() for line in (run / "metrics" / "reward").read_text().splitlines()]
    assert [(int(step), float(value)) for _, value, step in points] == [
        (1, 0.1),
        (2, 0.2),
        (3, 0.3),
        (4, 0.4),
    ]
    assert (run / "params" / "spec.training.learningRate").read_text() == "0.0001"
    assert (run / "metrics" / "final" / "evaluation" / "reward" / "difference" / "high").is_file()
    assert (run / "artifacts" / "adapter" / "adapter_config.json").is_file()


@needs("mlflow")
def test_what_was_not_logged_by_an_earlier_attempt_is_logged_when_the_job_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    store = tmp_path / "store"
    asked = config(tmp_path, mlflow=TARGETS["mlflow"] | {"trackingUri": store.as_uri()})
    attempt(asked, {3: 0.3}, SUCCEEDED, {1: 0.1, 2: 0.2})
    (points,) = store.glob("*/*/metrics/reward")
    assert [line.split()[2] for line in points.read_text().splitlines()] == ["1", "2", "3"]


def test_a_parameter_that_mlflow_would_refuse_is_cut() -> None:
    long = limited({"code": "x" * (MAX_VALUE + 1), "n" * 300: "1", "empty": ""})
    assert len(long["code"]) == MAX_VALUE
    assert long["code"].endswith("…")
    assert [len(name) for name in long] == [4, 250]


# --- TensorBoard --------------------------------------------------------------------------------------


@needs("tensorboard")
def test_tensorboard_shows_the_values_of_the_attempt_that_went_on(tmp_path: Path) -> None:
    two_attempts(config(tmp_path / "run", tensorboard={}))
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    curve = {event.step: float(make_ndarray(event.tensor_proto)) for event in events.Tensors("reward")}
    assert curve == pytest.approx({1: 0.1, 2: 0.2, 3: 0.35, 4: 0.4})
    assert len(events.Tensors("reward")) == 4
    assert "eval/graders/right" in events.Tags()["tensors"]
    assert "parameters" in events.Tags()["tensors"]


@needs("tensorboard")
def test_a_run_logs_its_steps_and_both_evaluations_by_itself(
    character_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: 1)
    rows = [{"messages": [{"role": "user", "content": f"{a}+7"}], "answer": str(a)} for a in range(70)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    spec = parse(
        manifest(
            model={"name": str(character_model)},
            graders=[{"name": "exact", "exactMatch": {}}],
            training={"batchSizeTokens": 1024},
            sampling={"engine": "transformers", "maxTokens": 16},
            stop={"maxSteps": 1},
            tracking={"tensorboard": {}},
        )
    ).spec
    asked = config(tmp_path).model_copy(
        update={
            "spec": spec,
            "effective": effective(spec, UID, 128),
            "dataset_path": str(tmp_path / "rows.jsonl"),
        }
    )
    assert run_attempt(asked, lambda: False) == 0
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Tensors("stepSeconds")] == [1]
    assert [event.step for event in events.Tensors("eval/reward")] == [0, 1]
    assert [event.step for event in events.Tensors("final/evaluation/reward/difference/mean")] == [1]


# --- what cannot go wrong -----------------------------------------------------------------------------


def test_a_library_that_is_not_installed_is_refused_before_the_run_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "mlflow" else object())
    with pytest.raises(ConfigurationError, match=r"spec\.tracking\.mlflow: .*rft-operator\[mlflow\]"):
        Trackers(config(tmp_path, **TARGETS))


def test_without_tracking_nothing_is_started(tmp_path: Path) -> None:
    started: list[str] = []

    def sender(backend: str) -> Sender:
        started.append(backend)
        return Sender(backend)

    with Trackers(config(tmp_path), sender) as trackers:
        trackers.start(0, 1)
        trackers.step(record(1, 0.5))
    assert started == []


def process(code: str, backend: str = "mlflow") -> Sender:
    return Sender(backend, [sys.executable, "-c", code])


def test_a_library_that_hangs_is_ended_when_its_time_is_up_and_holds_nothing_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sender = process("import time; time.sleep(1000)")
    # More than the pipe and the queue hold together.
    for step in range(10 * QUEUE_LENGTH):
        sender.send("log", {"step": step, "numbers": {"reward": 0.5}})
    assert sender.dropped > 0
    assert not sender.close(0.2)
    assert "did not finish" in caplog.text
    assert "calls, which were dropped" in caplog.text


def test_a_process_that_dies_is_told_once_and_its_calls_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    # A name that no other test uses, because the thread of another test's sender may still write to the log.
    sender = process("raise SystemExit(3)", "wandb")
    assert sender._process is not None
    sender._process.wait()
    for step in range(3):
        sender.send("log", {"step": step, "numbers": {}})
    assert not sender.close(10)
    sender._thread.join()
    assert caplog.text.count("the process of wandb ended") == 1
    assert sender.dropped == 3


class Unreliable:
    """A tracker whose first ``failures`` calls fail, because its server does not answer."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.calls: list[str] = []

    def _call(self, name: str) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectionError(f"no route with {KEY}")
        self.calls.append(name)

    def start(self, run: RunInfo) -> None:
        self._call("start")

    def log(self, step: int, numbers: object) -> None:
        self._call(f"log {step}")

    def evaluation(self, step: int, numbers: object) -> None:
        self._call(f"evaluation {step}")

    def finish(self, end: End, numbers: object) -> None:
        self._call(f"finish {end.reason}")


def lines(*calls: tuple[str, dict[str, Any]]) -> list[str]:
    return [json.dumps(call) for call in calls]


START = ("start", {"name": "a", "namespace": "b", "uid": "c", "folder": "d", "resumed_from": 0, "attempt": 1,
                   "trainer_pid": 1, "target": {}, "parameters": {}})  # fmt: skip
FINISH = ("finish", {"end": {"exit_code": 0, "reason": "Completed", "adapter": ""}, "numbers": {}})


def test_a_server_that_is_away_at_the_start_gets_every_row_once_it_answers(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    tracker = Unreliable(7)
    pauses: list[float] = []
    worker = TrackerWorker("wandb", tracker, pauses.append)
    worker.run(lines(START, ("log", {"step": 1, "numbers": {}}), FINISH))
    assert tracker.calls == ["start", "log 1", "finish Completed"]
    assert pauses == [2, 4, 8, 16, 32, 60, 60]
    assert caplog.text.count("ConnectionError") == 1
    assert KEY not in caplog.text


def test_a_row_that_is_refused_again_and_again_is_counted_and_left(caplog: pytest.LogCaptureFixture) -> None:
    tracker = Unreliable(0)
    worker = TrackerWorker("wandb", tracker, lambda seconds: None)
    worker.run(lines(START))
    tracker.failures = TRIES
    worker.run(lines(("log", {"step": 1, "numbers": {}}), ("evaluation", {"step": 1, "numbers": {}}), FINISH))
    assert tracker.calls == ["start", "evaluation 1", "finish Completed"]
    assert "lacks the data of 1 calls, which failed" in caplog.text


def test_a_key_that_a_library_quotes_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "abc")
    assert without_secrets("401 for abc") == "401 for ***"


def test_parameters_hold_everything_but_tracking_template_and_passwords(tmp_path: Path) -> None:
    given = hyperparameters(config(tmp_path, **TARGETS))
    assert given["spec"]["dataset"]["uri"] == "https://host/rows.jsonl"
    assert given["spec"]["sampling"]["topK"] == 40
    assert {"tracking", "template"}.isdisjoint(given["spec"])
    assert "of-the-template" not in json.dumps(given)
    assert texts(given)["spec.graders.0.name"]


def test_numbers_are_flattened_by_path_and_the_rest_is_left_out() -> None:
    found = numbers({"a": 1, "b": {"c": True, "d": None}, "e": "text", "f": [1], "g": float("nan")})
    assert found == {"a": 1.0, "b/c": 1.0}


def test_a_fenced_attempt_ends_without_a_word(tmp_path: Path) -> None:
    told = tmp_path / "told"
    code = f"import sys; open({str(told)!r}, 'w').write(sys.stdin.read())"
    trackers = Trackers(config(tmp_path, tensorboard={}), lambda backend: process(code))
    trackers.start(0, 1)
    trackers.finish(status(tmp_path, 1), Ending(exit_code=76, reason="Fenced", message=""))
    assert not told.exists() or "finish" not in told.read_text()


def test_the_trainers_standard_output_stays_its_own(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sender = process("print('chatter', flush=True)")
    sender.close(10)
    assert os.linesep not in capfd.readouterr().out
