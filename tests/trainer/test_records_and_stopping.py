"""A resumed run keeps the metrics of the steps up to its checkpoint. Each stop rule has its own reason."""

import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rft_advice.canary import WINDOW, Fall
from rft_api.conditions import Reason
from rft_api.lifecycle import Stop
from rft_api.status import RewardPoint
from rft_run.folder import RunFolder
from rft_run.state import RunState
from rft_run.steps import StepRecord
from rft_trainer import canaries
from rft_trainer.monitors.records import StepsFile
from rft_trainer.stopping import stop_reason

NOW = datetime(2027, 1, 31, 18, tzinfo=UTC)


def test_metrics_are_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    first = StepsFile(RunFolder(tmp_path), 0)
    for step in (1, 2, 3):
        first.append(StepRecord(step=step))
    with path.open("a") as file:
        file.write('{"step": 4, "rew')  # killed while writing
    resumed = StepsFile(RunFolder(tmp_path), 2)
    assert [record.step for record in resumed.records] == [1, 2]
    resumed.append(StepRecord.model_validate({"step": 3, "new": True}))
    assert path.read_text() == '{"step":1}\n{"step":2}\n{"step":3,"new":true}\n'


def test_a_line_of_the_metrics_that_cannot_be_read_costs_no_other_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "metrics.jsonl"
    content = '{"step":1}\n{"ste\n{"step":3}\n'
    path.write_text(content)
    assert [record.step for record in StepsFile(RunFolder(tmp_path), 3).records] == [1, 3]
    assert path.read_text() == '{"step":1}\n{"step":3}\n'
    assert (tmp_path / "metrics.jsonl.unreadable").read_text() == content
    assert "line 2 cannot be read" in caplog.text
    assert "has no record of 1 of the 3 steps so far, e.g. of step 2" in caplog.text


@pytest.mark.parametrize(
    ("rule", "state", "reward", "reason"),
    [
        ({"max_steps": 3}, {"step": 3}, None, Reason.MAX_STEPS),
        ({"max_steps": 3}, {"step": 2}, None, None),
        ({"target_reward": 0.5}, {}, 0.5, Reason.TARGET_REWARD),
        ({"target_reward": 0.5}, {}, None, None),
        ({"patience": 2}, {"evaluations_without_best": 2}, 0.1, Reason.PATIENCE),
        ({"max_gpu_hours": 1.0}, {"gpu_seconds": 3600.0}, None, Reason.MAX_GPU_HOURS),
        ({"deadline": "2027-01-31T18:00:00Z"}, {}, None, Reason.DEADLINE),
        ({"deadline": "2027-01-31T18:00:01Z"}, {}, None, None),
    ],
)
def test_each_rule_stops_with_its_own_reason(
    rule: dict[str, Any], state: dict[str, Any], reward: float | None, reason: str | None
) -> None:
    assert stop_reason(Stop(**rule), RunState(**state), reward, NOW) == reason


def test_a_canary_stops_only_where_that_is_asked_for() -> None:
    fall = Fall("canary", 0.9, 0.4, 0.2, 0.8, 8, 9.0)
    assert stop_reason(Stop(canary=0.5), RunState(), None, NOW, fall) == Reason.CANARY
    assert stop_reason(Stop(max_steps=9), RunState(), None, NOW, fall) is None
    assert stop_reason(Stop(canary=0.5), RunState(), None, NOW) is None


@pytest.mark.parametrize(
    ("checkpoints", "step", "found"),
    [([5, 10, 15], 12, 10), ([5, 10], 10, 10), ([15, 20], 12, 15), ([], 12, None)],
)
def test_the_run_returns_to_the_last_checkpoint_before_the_fall(
    checkpoints: list[int], step: int, found: int | None
) -> None:
    assert canaries.last_before(checkpoints, step) == found


@pytest.mark.parametrize("seed", range(20))
def test_the_checkpoint_before_a_fall_is_kept_at_every_save(seed: int) -> None:
    noise = random.Random(seed)
    points: list[RewardPoint] = []
    checkpoints: set[int] = set()
    for step in range(1, 60):
        score = 0.4 + step / 100 + noise.gauss(0, 0.02) - (0.6 if step > 40 else 0)
        reward = step / 60 + noise.gauss(0, 0.01)
        points.append(RewardPoint(step=step, reward=reward, graders={"canary": score}))
        if step >= WINDOW:
            kept = canaries.kept(Stop(canary=0.1), points, ["canary"], [*checkpoints, step])
            checkpoints = {step} | (checkpoints & kept)  # as with checkpoint.keep 1
        if (fall := canaries.fall(Stop(canary=0.1), points, ["canary"])) is not None:
            assert canaries.last_before(sorted(checkpoints), fall.step) == fall.step <= 40
            return
    pytest.fail("no fall of the canary's scores was found")


def test_without_rules_nothing_stops() -> None:
    assert stop_reason(None, RunState(step=10**6), 1.0, NOW) is None
