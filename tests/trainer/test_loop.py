"""Whole runs with a small model and the engine ``transformers``. Stopping and resuming changes no result."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from rft_api.parameters import Dtype, Training
from rft_api.status import RunStatus
from rft_planner.precision import WIDTHS
from rft_run.config import ReportTarget, RunConfig
from rft_run.errors import Preempted
from rft_run.folder import RunFolder
from rft_run.steps import read_steps
from rft_trainer.learn.policy import Policy, PolicyOptions
from rft_trainer.loop import Run
from rft_trainer.monitors.monitors import Monitors
from rft_trainer.rollout.engine import AdapterVersion
from rft_trainer.rollout.transformers_engine import TransformersEngine
from rft_trainer.runtime import machine
from tests.trainer.loop_support import COMPARED, config, run, with_spec
from tests.trainer.report_support import Server


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use one CPU thread, because such a small model is slower with several threads."""
    monkeypatch.setattr(machine, "usable_cores", lambda: 1)


def trajectory(folder: Path) -> list[list[Any]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [[row[key] for key in COMPARED] for row in rows]


def test_a_resumed_run_whose_policy_is_still_its_warm_start_samples_from_the_warm_start(
    character_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = Policy(PolicyOptions(character_model, Training(lora_rank=4, lora_alpha=8), "cpu", "float32", 5))
    (tmp_path / "start").mkdir()
    policy.save_adapter(tmp_path / "start")
    used: list[str] = []
    generate = TransformersEngine.generate

    def noted(engine: TransformersEngine, *arguments: Any) -> Any:
        used.append(engine._adapter.name if engine._adapter is not None else "base")
        return generate(engine, *arguments)

    monkeypatch.setattr(TransformersEngine, "generate", noted)
    monkeypatch.setattr(Run, "_probe_sampler", lambda _self, _parts: None)
    wanted = with_spec(
        config(character_model, tmp_path / "run", loraRank=4, loraAlpha=8, refillRounds=1),
        model={"name": str(character_model), "adapter": {"path": str(tmp_path / "start")}},
        graders=[{"name": "never", "regex": {"pattern": "^never$"}}],  # so no group is trained on
        preflight="off",
        evaluation={"fraction": 0},
    )
    for steps in (1, 2):
        made = run(with_spec(wanted, stop={"maxSteps": steps}))
        assert (made.state.step, made.state.adapter_version) == (steps, 0)
    assert set(used) == {"v000000"}


@pytest.mark.parametrize("machine_dtype", WIDTHS)
def test_a_deterministic_run_that_was_preempted_ends_as_one_that_was_not(
    character_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine_dtype: Dtype
) -> None:
    monkeypatch.setenv("RFT_CPU_DTYPE", machine_dtype)
    whole = run(config(character_model, tmp_path / "whole", deterministic=True))
    assert whole.state.step == 3
    assert torch.are_deterministic_algorithms_enabled()

    asked = False
    step = Run._step

    def stop_after_one(self: Run, *arguments: Any) -> None:
        nonlocal asked
        step(self, *arguments)
        asked = self.state.step == 1

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_step", stop_after_one)
        with pytest.raises(Preempted):
            run(config(character_model, tmp_path / "cut", deterministic=True), lambda: asked)
    resumed = run(config(character_model, tmp_path / "cut", deterministic=True))
    assert resumed.monitors.status.resumed_from_step == 1
    assert trajectory(tmp_path / "cut") == trajectory(tmp_path / "whole")
    weights = "adapter/adapter_model.safetensors"
    assert (tmp_path / "cut" / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()


@pytest.mark.parametrize("dtype", WIDTHS)
def test_a_finished_run_leaves_an_adapter_that_peft_loads_and_a_paired_evaluation(
    character_model: Path, tmp_path: Path, dtype: Dtype
) -> None:
    finished = run(config(character_model, tmp_path / "run", cpuDtype=dtype))
    PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(character_model), str(tmp_path / "run" / "adapter")
    )
    snapshot = finished.monitors.snapshot()
    assert snapshot.progress.stage == "finished"
    assert snapshot.evaluation is not None
    assert snapshot.evaluation.reward is not None
    assert snapshot.evaluation.reward.difference is not None
    assert snapshot.evaluation.rows == 32
    # Random weights seldom end an answer within 16 tokens.
    assert "completions-cut" in {advice.rule for advice in snapshot.recommendations or []}
    assert not list((tmp_path / "run").rglob("*.partial"))


def test_a_run_without_evaluation_trains_on_all_rows_and_resumes_to_the_same_adapter(
    character_model: Path, tmp_path: Path
) -> None:
    def asked(name: str, steps: int) -> RunConfig:
        spec = config(character_model, tmp_path / name, deterministic=True)
        return with_spec(spec, evaluation={"fraction": 0}, stop={"maxSteps": steps})

    whole = run(asked("whole", 3))
    run(asked("cut", 1))
    resumed = run(asked("cut", 3))
    assert resumed.monitors.status.resumed_from_step == 1
    weights = "adapter/adapter_model.safetensors"
    assert (tmp_path / "cut" / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()
    snapshot = whole.monitors.snapshot()
    assert snapshot.evaluation is None
    assert snapshot.progress.stage == "finished"
    assert not whole.folder.evaluated_steps()
    assert whole.state.step == 3


def test_the_gpus_time_is_that_of_the_steps_and_the_evaluations(
    character_model: Path, tmp_path: Path
) -> None:
    asked = config(character_model, tmp_path / "run").model_copy(update={"gpus": 2})
    finished = run(asked)
    assert finished.monitors.records
    steps = 2 * sum(record.step_seconds or 0.0 for record in finished.monitors.records)
    usage = finished.monitors.snapshot().usage
    assert usage is not None
    assert usage.gpu_seconds > steps
    assert usage.expected_gpu_hours == usage.gpu_seconds / 3600


def test_stop_rules_that_change_while_the_run_goes_on_are_followed(
    character_model: Path, tmp_path: Path
) -> None:
    server = Server(tmp_path / "server")
    server.says = b'{"stop": {"maxSteps": 1}}'
    (tmp_path / "token").write_text("token")
    target = ReportTarget(url=server.url, ca_file=str(server.certificate), token_file=str(tmp_path / "token"))
    try:
        ended = run(config(character_model, tmp_path / "run").model_copy(update={"report": target}))
    finally:
        server.close()
    assert ended.state.step == 1
    assert ended.monitors.status.total_steps == 1


def test_a_step_that_a_stop_keeps_from_being_published_is_recorded_with_its_checkpoint(
    character_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = False

    use = TransformersEngine.use_adapter

    def interrupted(engine: TransformersEngine, adapter: AdapterVersion | None, *others: Any) -> None:
        nonlocal asked
        if adapter is None or not adapter.name.startswith("v"):  # called for the sampler's probe
            return use(engine, adapter, *others)
        asked = True
        raise Preempted("a stop is requested while the sampler restarts")

    monkeypatch.setattr(TransformersEngine, "use_adapter", interrupted)
    with pytest.raises(Preempted):
        run(config(character_model, tmp_path / "run"), lambda: asked)
    recorded = [record.step for record in read_steps(tmp_path / "run" / "metrics.jsonl")]
    assert RunFolder(tmp_path / "run").steps_with_checkpoint() == recorded[-1:] != []


def test_a_restart_of_the_sampler_is_reported_with_its_step_even_if_nothing_is_published(
    character_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate, report = TransformersEngine.generate, Monitors.report
    reported: list[tuple[int, int]] = []

    def restarted(engine: TransformersEngine, *arguments: Any) -> Any:
        engine.restarts += 1
        return generate(engine, *arguments)

    def noted(monitors: Monitors) -> RunStatus:
        progress = report(monitors).progress
        reported.append((progress.step, progress.samplers_restarted))
        return monitors.snapshot()

    monkeypatch.setattr(TransformersEngine, "generate", restarted)
    monkeypatch.setattr(Monitors, "report", noted)
    monkeypatch.setattr(Run, "_publish", lambda _self, _parts: None)
    monkeypatch.setattr(Run, "_probe_sampler", lambda _self, _parts: None)
    run(config(character_model, tmp_path / "run"))
    # Preflight and the base's evaluation sample once each before the first step.
    assert [pair for pair in reported if pair[0]] == [(1, 3), (2, 4), (3, 5)]
