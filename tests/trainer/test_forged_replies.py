"""If a grader's code forges replies of its worker process, the metrics and the status count these replies."""

import io
from pathlib import Path

import pytest

from rft_run.steps import read_steps
from rft_trainer.loop import Run
from rft_trainer.monitors.progress import Events
from rft_trainer.monitors.report import Reporter
from rft_trainer.runtime import machine
from tests.trainer.forging_support import FORGER
from tests.trainer.loop_support import config, with_spec


def test_forged_replies_are_counted_in_metrics_and_status(
    character_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: 1)
    forger = {"name": "forger", "weight": 0, "python": {"inline": FORGER}}
    asked = with_spec(
        config(character_model, tmp_path), stop={"maxSteps": 1}, preflight="off",
        graders=[{"name": "exact", "exactMatch": {}}, forger],
    )  # fmt: skip
    with Reporter(asked) as reporter:
        run = Run(asked, reporter, Events(io.StringIO()), lambda: False)
        run.train()
    (record,) = read_steps(tmp_path / "metrics.jsonl")
    assert record.forged_replies
    usage = run.monitors.snapshot().usage
    assert usage is not None
    assert usage.forged_replies == usage.grader_errors == {"forger": record.forged_replies}
