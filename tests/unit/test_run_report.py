"""A report that becomes the termination message of a pod is short enough for the kubelet."""

import json

import pytest

from rft_api.status import Progress, Reward, RewardPoint, RunStatus
from rft_run.report import MAX_ENDING, MAX_TERMINATION_BYTES, Ending, ProgressReport

HISTORY = [RewardPoint(step=i, reward=i / 7) for i in range(50)]


@pytest.mark.parametrize("character", ["x", "ä", "\U0001f600", '"'])
@pytest.mark.parametrize("length", [0, 300, MAX_ENDING])
def test_a_termination_message_is_short_whatever_its_characters(character: str, length: int) -> None:
    report = ProgressReport(
        attempt="pod-1",
        sequence=1,
        run=RunStatus(progress=Progress(step=49), reward=Reward(history=HISTORY)),
        ending=Ending(exit_code=10, reason="UserCodeError", message=character * length),
    )
    body = report.termination_message()
    assert len(json.dumps(body, separators=(",", ":")).encode()) <= MAX_TERMINATION_BYTES
    assert body["run"]["progress"]["step"] == 49
    said = body["ending"].get("message", "")
    assert set(said) <= {character}
    assert len(said) >= min(length, 150)
