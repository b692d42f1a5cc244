"""An evaluation without training gives the same numbers on the same rows as a run."""

import io
import json
import shutil
from pathlib import Path

import pytest

from rft_run.config import RunConfig
from rft_run.evaluation import EvaluationRecord, read_evaluation
from rft_run.events import EndEvent, EvaluationEvent, StageEvent, parse
from rft_run.exit_codes import ExitCode
from rft_run.folder import RunFolder, adapter_config_of, adapter_of
from rft_run.rollouts import read_rollouts
from rft_run.status_file import read_status
from rft_trainer.monitors.progress import Events
from rft_trainer.score import ScoredPolicy, score
from tests.trainer.loop_support import rewarded, run

STEPS = 3
"""Number of steps of the run, see ``config`` of ``loop_support``."""


@pytest.fixture(scope="module")
def trained(character_model: Path, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """Return the configuration of a finished run, whose training changed the greedy answers."""
    config = rewarded(character_model, tmp_path_factory.mktemp("run"), loraRank=32)
    run(config)
    return config


def elsewhere(config: RunConfig, folder: Path) -> RunConfig:
    """Return the configuration with another run folder, which is empty."""
    folder.mkdir()
    return config.model_copy(update={"run_dir": str(folder)})


def scored(
    config: RunConfig, tuned: ScoredPolicy | None = None, limit: int | None = None, *, stop: bool = False
) -> tuple[int, list[object]]:
    written = io.StringIO()
    code = score(config, tuned, limit, lambda: stop, Events(written))
    return code, [parse(line) for line in written.getvalue().splitlines()]


def recorded(config: RunConfig, step: int) -> EvaluationRecord:
    return read_evaluation(RunFolder(Path(config.run_dir)), step)


def test_base_and_adapter_get_the_scores_that_the_run_recorded(trained: RunConfig, tmp_path: Path) -> None:
    source = RunFolder(Path(trained.run_dir))
    config = elsewhere(trained, tmp_path / "again")
    code, events = scored(config, ScoredPolicy(STEPS, source.adapter))
    assert code == ExitCode.OK
    base, tuned = recorded(config, 0), recorded(config, STEPS)
    assert (base, tuned) == (recorded(trained, 0), recorded(trained, STEPS))
    assert base.completions != tuned.completions
    assert len(base.lines) == 32
    known = read_status(source.status).evaluation
    found = read_status(RunFolder(tmp_path / "again").status).evaluation
    assert found is not None
    assert known is not None
    assert found.reward == known.reward
    assert found.reward is not None
    assert found.reward.difference is not None
    assert [event.step for event in events if isinstance(event, EvaluationEvent)] == [0, STEPS]
    stages = [event.stage for event in events if isinstance(event, StageEvent)]
    assert stages == ["preparing", "evaluatingBase", "evaluatingTuned"]
    assert isinstance(events[-1], EndEvent)


def test_the_rollouts_are_written_as_a_run_writes_them(trained: RunConfig, tmp_path: Path) -> None:
    config = elsewhere(trained, tmp_path / "limited")
    assert scored(config, limit=5)[0] == ExitCode.OK
    folder = RunFolder(tmp_path / "limited")
    scores, rollouts = recorded(config, 0), read_rollouts(folder.rollouts_of(0))
    assert scores.lines == recorded(trained, 0).lines[:5]
    assert [rollout.line for rollout in rollouts] == scores.lines
    assert [rollout.completion for rollout in rollouts] == scores.completions
    assert [rollout.reward for rollout in rollouts] == scores.reward
    assert not folder.data.exists()


def test_separate_rows_are_evaluated_without_reading_the_training_rows(
    trained: RunConfig, tmp_path: Path
) -> None:
    """The training dataset does not exist, so an attempt to read it would fail."""
    rows = Path(trained.dataset_path).read_text().splitlines()[:3]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    config = elsewhere(trained, tmp_path / "own").model_copy(
        update={"evaluation_path": str(tmp_path / "rows.jsonl"), "dataset_path": "/nothing/here.jsonl"}
    )
    assert scored(config)[0] == ExitCode.OK
    assert recorded(config, 0).lines == [1, 2, 3]


def test_the_starting_policy_has_the_adapter_from_which_the_job_starts(
    trained: RunConfig, tmp_path: Path
) -> None:
    adapter = RunFolder(Path(trained.run_dir)).adapter
    model = {**trained.spec.model.dump(), "adapter": {"path": str(adapter)}}
    spec = type(trained.spec).model_validate({**trained.spec.dump(), "model": model})
    config = elsewhere(trained, tmp_path / "warm").model_copy(update={"spec": spec})
    assert scored(config)[0] == ExitCode.OK
    assert recorded(config, 0).reward == recorded(trained, STEPS).reward


def test_an_adapter_that_does_not_fit_the_base_model_is_named(trained: RunConfig, tmp_path: Path) -> None:
    other = shutil.copytree(RunFolder(Path(trained.run_dir)).adapter, tmp_path / "other")
    file = adapter_config_of(other)
    file.write_text(json.dumps({**json.loads(file.read_text()), "r": 4}))
    code, events = scored(elsewhere(trained, tmp_path / "a"), ScoredPolicy(STEPS, other))
    assert code == ExitCode.CONFIGURATION
    assert isinstance(events[-1], EndEvent)
    assert f"{other}: does not fit the base model" in events[-1].message
    code, events = scored(elsewhere(trained, tmp_path / "b"), ScoredPolicy(STEPS, adapter_of(tmp_path)))
    assert code == ExitCode.CONFIGURATION
    assert isinstance(events[-1], EndEvent)
    assert "is not an adapter that can be loaded" in events[-1].message


def test_a_stop_leaves_no_scores(trained: RunConfig, tmp_path: Path) -> None:
    config = elsewhere(trained, tmp_path / "stopped")
    code, events = scored(config, stop=True)
    assert code == ExitCode.PREEMPTED
    assert isinstance(events[-1], EndEvent)
    assert RunFolder(tmp_path / "stopped").evaluated_steps() == []
