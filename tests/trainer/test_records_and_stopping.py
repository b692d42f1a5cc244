"""The metric history follows the checkpoint; every stop rule has its reason."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rft_api.conditions import Reason
from rft_api.lifecycle import Stop
from rft_run.folder import RunFolder
from rft_run.state import RunState
from rft_run.steps import StepRecord
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


def test_without_rules_nothing_stops() -> None:
    assert stop_reason(None, RunState(step=10**6), 1.0, NOW) is None
