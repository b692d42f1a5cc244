"""The checkpoint with the highest held-out reward is kept, recorded in the status and exported."""

from pathlib import Path

import pytest

from rft_cli.commands.export import choose
from rft_cli.render.evaluation import evaluation_table
from rft_run.folder import RunFolder
from rft_trainer.evaluate import RowScores, compare
from rft_trainer.runtime import machine
from tests.trainer.loop_support import config, run


def scores(step: int, *rewards: float) -> RowScores:
    return RowScores(step, list(range(len(rewards))), list(rewards), {}, [], 0.0)


def test_the_best_is_compared_with_the_base_as_the_last_is() -> None:
    result = compare(scores(0, 0.0, 0.5), scores(9, 0.0, 0.5), 1, scores(6, 1.0, 0.5), selected=True)
    assert result.best is not None
    assert result.best.step == 6
    assert (result.best.reward.base, result.best.reward.tuned) == (0.25, 0.75)
    assert result.best.reward.difference is not None
    assert result.best.reward.difference.mean == 0.5
    assert (result.step, result.selected) == (9, True)


def test_before_any_step_there_is_no_best() -> None:
    assert compare(scores(0, 0.0), None, 1).best is None


def test_the_best_survives_retention_and_is_what_export_takes(
    character_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: 1)
    asked = config(character_model, tmp_path / "run")
    spec = asked.spec.model_copy(
        update={
            "evaluation": asked.spec.evaluation.model_copy(update={"every_steps": 1}),
            "checkpoint": asked.spec.checkpoint.model_copy(update={"every_steps": 1, "keep": 1}),
            "preflight": "off",
        }
    )
    finished = run(asked.model_copy(update={"spec": spec}))
    folder = tmp_path / "run"

    def reward(step: int) -> float:
        saved = RowScores.read(RunFolder(folder), step)
        assert saved is not None
        return saved.mean_reward

    best = max((1, 2, 3), key=reward)
    kept = {path.name for path in (folder / "checkpoints").iterdir()}
    assert kept == {f"step-{best:06d}", "step-000003"}
    status = finished.monitors.snapshot()
    assert status.output is not None
    assert status.output.best_checkpoint == str(folder / "checkpoints" / f"step-{best:06d}")
    assert status.evaluation is not None
    assert status.evaluation.best is not None
    assert status.evaluation.best.step == best
    assert status.evaluation.best.reward.tuned == pytest.approx(reward(best))
    assert status.evaluation.step == 3
    assert status.evaluation.selected
    assert choose(folder, None, best=True).folder == folder / "checkpoints" / f"step-{best:06d}" / "adapter"
    assert choose(folder, None, best=False).folder == folder / "adapter"


def test_the_only_evaluation_is_the_best_and_was_not_selected(
    character_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: 1)
    asked = config(character_model, tmp_path / "run")
    finished = run(asked.model_copy(update={"spec": asked.spec.model_copy(update={"preflight": "off"})}))
    status = finished.monitors.snapshot()
    assert status.evaluation is not None
    assert status.evaluation.best is not None
    assert status.evaluation.best.step == status.evaluation.step == 3
    assert not status.evaluation.selected
    assert choose(tmp_path / "run", None, best=True).what == "step 3"


def test_the_table_has_a_line_for_a_best_that_is_not_the_last() -> None:
    other = compare(scores(0, 0.0, 0.5), scores(9, 0.0, 0.5), 1, scores(6, 1.0, 0.5), selected=True)
    same = compare(scores(0, 0.0, 0.5), scores(6, 1.0, 0.5), 1, scores(6, 1.0, 0.5))
    assert list(evaluation_table(other).columns[0].cells) == ["reward", "best reward, at step 6"]
    assert list(evaluation_table(same).columns[0].cells) == ["reward"]
