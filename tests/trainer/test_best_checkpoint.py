"""The checkpoint with the highest held-out reward is kept, recorded in the status and exported."""

from pathlib import Path

import pytest

from rft_api.parameters import Training
from rft_cli.commands.export import choose
from rft_cli.render.evaluation import evaluation_table
from rft_run.folder import RunFolder, values_of
from rft_trainer.evaluate import RowScores, compare
from rft_trainer.learn.policy import Policy, PolicyOptions
from rft_trainer.runtime import machine
from tests.trainer.loop_support import config, rewarded, run, with_spec


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


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("content", [None, "{"])
def test_a_resumed_run_whose_first_evaluation_is_lost_evaluates_the_starting_policy_again(
    character_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    warm: bool,
    content: str | None,
) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: 1)
    asked = rewarded(character_model, tmp_path / "run", loraRank=4, loraAlpha=8)
    asked = with_spec(asked, preflight="off", evaluation={"everySteps": 1, "temperature": 1.0})
    if warm:
        options = PolicyOptions(character_model, Training(lora_rank=4, lora_alpha=8), "cpu", "float32", 5)
        start = Policy(options)
        for factor in start.output_factors():
            factor.data.fill_(0.02)
        (tmp_path / "start").mkdir()
        start.save_adapter(tmp_path / "start")
        model = {"name": str(character_model), "adapter": {"path": str(tmp_path / "start")}}
        asked = with_spec(asked, model=model)
    run(with_spec(asked, stop={"maxSteps": 2}))
    folder = RunFolder(tmp_path / "run")
    base, later = folder.evaluation_of(0), folder.evaluation_of(2)
    before = base.read_text()
    assert before.replace('"step": 0', '"step": 2') != later.read_text()
    if content is None:
        base.unlink()
    else:
        base.write_text(content)
    ended = run(with_spec(asked, stop={"maxSteps": 3}))
    assert base.read_text() == before
    assert ended.monitors.status.resumed_from_step == 2
    assert folder.evaluated_steps() == [0, 1, 2, 3]
    assert not (folder.adapters / "start").exists()


def test_an_evaluation_of_a_step_that_is_repeated_is_made_again(
    character_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: 1)
    asked = rewarded(character_model, tmp_path / "run")
    asked = with_spec(asked, preflight="off", checkpoint={"everySteps": 1}, stop={"maxSteps": 3})
    run(asked)
    folder = RunFolder(tmp_path / "run")
    last = folder.evaluation_of(3)
    before = last.read_text()
    values_of(folder.checkpoint_of(3)).write_text("{")  # so the run continues from step 2
    last.write_text(before.replace('"completions": ["', '"completions": ["stale '))
    ended = run(asked)
    assert ended.monitors.status.resumed_from_step == 2
    assert last.read_text() == before


def test_a_resumed_run_does_not_repeat_a_lost_preflight(
    character_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: 1)
    asked = rewarded(character_model, tmp_path / "run")
    run(with_spec(asked, stop={"maxSteps": 1}))
    folder = RunFolder(tmp_path / "run")
    folder.preflight.unlink()
    run(with_spec(asked, stop={"maxSteps": 2}))
    assert not folder.preflight.exists()
    assert "the findings of the preflight are lost" in caplog.text
