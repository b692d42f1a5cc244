"""A grader of weight 0 is a canary.

Its scores are recorded, but do not change rewards. A fall of the scores can end the run.
"""

from pathlib import Path
from typing import Any

import pytest

from rft_advice import canary
from rft_api.conditions import Reason
from rft_api.job import RFTJobSpec
from rft_run.config import RunConfig
from rft_run.folder import RunFolder
from rft_run.rollouts import read_rollouts
from rft_run.steps import read_steps
from rft_trainer import canaries
from rft_trainer.loop import Run
from rft_trainer.monitors.progress import Events
from rft_trainer.monitors.report import Reporter
from rft_trainer.runtime import machine
from tests.trainer.loop_support import config

FALLS = """
def grade(completion, row):
    with open({calls!r}, "ab") as calls:
        calls.write(b"x")
        return calls.tell() < 250
"""
RISES = """
import os
def grade(completion, row):
    calls = os.path.getsize({calls!r}) if os.path.exists({calls!r}) else 0
    return min(calls, 2000) / 2000
"""
FAILS = "def grade(completion, row): raise ValueError('away')"


def with_graders(asked: RunConfig, graders: list[dict[str, Any]], **sections: Any) -> RunConfig:
    spec = {**asked.spec.dump(), "graders": graders, "preflight": "off", **sections}
    return asked.model_copy(update={"spec": RFTJobSpec.model_validate(spec)})


def trained(asked: RunConfig) -> tuple[Run, str]:
    with Reporter(asked) as reporter:
        attempt = Run(asked, reporter, Events(), lambda: False)
        return attempt, attempt.train()


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: 1)


def test_a_canary_that_always_fails_drops_nothing_and_pauses_nothing(
    character_model: Path, tmp_path: Path
) -> None:
    graders: list[dict[str, Any]] = [
        {"name": "exact", "exactMatch": {}},
        {"name": "watched", "weight": 0, "onError": "fail", "python": {"inline": FAILS}},
    ]
    attempt, reason = trained(with_graders(config(character_model, tmp_path), graders, stop={"maxSteps": 1}))
    assert reason == Reason.MAX_STEPS
    status = attempt.monitors.snapshot()
    assert status.usage is not None
    assert status.usage.dropped_groups == 0
    rollouts = read_rollouts(RunFolder(tmp_path).rollouts_of(1))
    assert (status.usage.grader_errors or {})["watched"] == len(rollouts)
    assert all("away" in rollout.errors["watched"] and rollout.reward is not None for rollout in rollouts)
    assert status.evaluation is not None
    assert set(status.evaluation.graders or {}) == {"exact"}


def test_a_canary_that_falls_ends_the_run_at_the_last_checkpoint_before(
    character_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canary, "WINDOW", 2)
    monkeypatch.setattr(canaries, "WINDOW", 2)
    calls = str(tmp_path / "calls")
    graders: list[dict[str, Any]] = [
        {"name": "canary", "weight": 0, "python": {"inline": FALLS.format(calls=calls)}},
        {"name": "gamed", "python": {"inline": RISES.format(calls=calls)}},
    ]
    asked = with_graders(
        config(character_model, tmp_path, epochs=8),
        graders,
        stop={"canary": 0.5, "maxSteps": 20},
        checkpoint={"everySteps": 1, "keep": 1},
    )
    attempt, reason = trained(asked)
    assert reason == Reason.CANARY
    means = {record.step: record.graders["canary"] for record in read_steps(tmp_path / "metrics.jsonl")}
    ended = attempt.state.step
    assert means[ended] == 1.0
    assert means[max(means)] == 0.0
    assert ended < max(means) < 20
    status = attempt.monitors.snapshot()
    assert status.reward is not None
    assert [(point.graders or {})["canary"] for point in status.reward.history] == pytest.approx(
        list(means.values()), abs=1e-4
    )
    assert status.progress.step == ended
    assert status.evaluation is not None
    assert status.evaluation.step == ended
    assert {"canary", "gamed"} == set(status.evaluation.graders or {})
    assert "canary-fell" in [advice.rule for advice in status.recommendations or []]
    assert status.output is not None
    assert status.output.checkpoint == str(RunFolder(tmp_path).checkpoint_of(ended))
    final = (tmp_path / "adapter" / "adapter_model.safetensors").read_bytes()
    saved = RunFolder(tmp_path).checkpoint_of(ended) / "adapter" / "adapter_model.safetensors"
    assert final == saved.read_bytes()
