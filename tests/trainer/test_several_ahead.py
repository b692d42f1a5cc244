"""With ``maxStaleness`` 4, up to four batches are sampled ahead of training. No batch is lost.

The sampler has one adapter at a time, so the batches are sampled one after another.
"""

import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rft_run.config import RunConfig
from rft_run.errors import SamplerError
from rft_run.rollouts import read_rollouts
from rft_run.steps import StepRecord, read_steps
from rft_trainer import loop, setup
from rft_trainer.learn.gradients import UpdateSettings
from rft_trainer.learn.update import update
from rft_trainer.loop import Run
from rft_trainer.publish import Publisher
from rft_trainer.rollout.engine import AdapterVersion, Generated, Request
from rft_trainer.rollout.prefetch import Prefetch
from rft_trainer.rollout.transformers_engine import TransformersEngine
from rft_trainer.runtime import machine
from tests.trainer.loop_support import rewarded, run, with_spec

BOUNDS = {"staleTokenLow": 0.6, "staleTokenHigh": 1.5}
ROWS = 70


@dataclass
class Watched:
    """Settings by which a test controls its runs, and records of the runs."""

    needs: Callable[[int], int] | None = None
    """Decides when the sampler may begin with a batch that is sampled ahead.

    The function gets the number of the batch, from 1. It returns a version of the adapter. The batch is
    sampled when this version is saved. None: each update waits until all batches in the queue are sampled.
    """
    fail_at: int = 0
    """The number of the batch whose sampling fails. 0: none fails.

    Batch 1 is the run's first batch, which is not sampled ahead.
    """
    on_update: Callable[[], None] = lambda: None
    """A function that is called at the start of each update."""
    ahead: list[str] = field(default_factory=list)
    """The name of the adapter of each batch that was sampled ahead."""
    evaluated: list[str] = field(default_factory=list)
    """The name of the adapter of each call of the sampler by the main thread."""
    settings: list[UpdateSettings] = field(default_factory=list)
    """The settings of each update."""
    in_use: int = 0
    """Number of threads that use the sampler."""
    saved: int = 0
    """The newest saved version of the adapter."""
    changed: threading.Condition = field(default_factory=threading.Condition)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    """Return the settings and records of the test's runs. The runs sample ahead, although they use the CPU.

    The order of sampling and updates is set by the field ``needs``.
    """
    found = Watched()
    monkeypatch.setattr(machine, "usable_cores", lambda: 1)
    monkeypatch.setattr(Run, "_probe_sampler", lambda _self, _parts: None)
    monkeypatch.setattr(setup, "overlaps", lambda spec, gpus: spec.training.max_staleness > 0)
    lines: list[Prefetch] = []
    generate, use, save = TransformersEngine.generate, TransformersEngine.use_adapter, Publisher.save

    class Line(Prefetch):
        def __init__(self, depth: int, slots: int | None) -> None:
            assert slots is None
            super().__init__(depth, slots)
            lines.append(self)

    def watched_use(engine: TransformersEngine, adapter: AdapterVersion | None, kept: Any = ()) -> None:
        assert found.in_use == 0, "an adapter was loaded while a batch was sampled"
        use(engine, adapter, kept)

    def watched_generate(
        engine: TransformersEngine,
        requests: Sequence[Request],
        should_stop: Callable[[], bool],
        answered: Any,
    ) -> list[Generated]:
        adapter = engine._adapter
        found.in_use += 1
        assert found.in_use == 1, "two threads used the sampler"
        name = adapter.name if adapter is not None else "base"
        if threading.current_thread() is threading.main_thread():
            found.evaluated.append(name)
        else:
            found.ahead.append(name)
            if len(found.ahead) + 1 == found.fail_at:
                found.in_use -= 1
                raise SamplerError("the sampler has ended")
            number = len(found.ahead)
            with found.changed:
                version = found.needs(number) if found.needs is not None else 0
                assert found.changed.wait_for(lambda: found.saved >= version, 300), "the version is not saved"
        made = generate(engine, requests, should_stop, answered)
        assert adapter is None or adapter.path.is_dir(), "a restarted sampler could not load the adapter"
        found.in_use -= 1
        return made

    def watched_update(policy: Any, optimizer: Any, groups: Any, settings: Any, *others: Any) -> Any:
        found.settings.append(settings)
        found.on_update()
        if found.needs is None:
            lines[-1].wait()
        return update(policy, optimizer, groups, settings, *others)

    def watched_save(publisher: Publisher, version: int) -> None:
        save(publisher, version)
        with found.changed:
            found.saved = version
            found.changed.notify_all()

    monkeypatch.setattr(loop, "Prefetch", Line)
    monkeypatch.setattr(loop, "update", watched_update)
    monkeypatch.setattr(TransformersEngine, "generate", watched_generate)
    monkeypatch.setattr(TransformersEngine, "use_adapter", watched_use)
    monkeypatch.setattr(Publisher, "save", watched_save)
    return found


def asked(model: Path, folder: Path, steps: int, **training: Any) -> RunConfig:
    """Return the configuration of a run of one epoch. A batch has six to ten rows.

    The updates change the policy.
    """
    wanted = rewarded(model, folder, **BOUNDS, **training)
    return with_spec(wanted, stop={"maxSteps": steps}, preflight="off", evaluation={"fraction": 0})


def records(folder: Path) -> list[StepRecord]:
    return read_steps(folder / "metrics.jsonl")


def rows(folder: Path) -> list[int]:
    """Return the line numbers of the rows that were trained on, in the order of the steps."""
    paths = sorted((folder / "rollouts").glob("step-*.zst"))
    return [line for path in paths for line in dict.fromkeys(one.line for one in read_rollouts(path))]


@pytest.mark.parametrize(("most", "lags"), [(0, [0] * 7), (1, [0] + [1] * 6), (4, [0, 1, 2, 3, 4, 4, 4])])
def test_a_fast_sampler_is_as_many_versions_behind_as_allowed_and_the_bounds_bind(
    watched: Watched, character_model: Path, tmp_path: Path, most: int, lags: list[int]
) -> None:
    run(asked(character_model, tmp_path, 7, maxStaleness=most))
    made = records(tmp_path)
    assert [one.updates for one in made] == [1] * 7
    assert [one.staleness for one in made] == lags
    bounds = [(one.loss.mismatch.token_low, one.loss.mismatch.token_high) for one in watched.settings]
    assert bounds == [(0.6, 1.5) if lag else (0.0, 2.0) for lag in lags]
    # With several batches ahead, the version that sampled the last batch is still loaded.
    assert len(list((tmp_path / "adapters").glob("v*"))) == 1 + max(1, most) + (most > 1)


def test_a_slow_sampler_begins_each_batch_with_the_newest_version(
    watched: Watched, character_model: Path, tmp_path: Path
) -> None:
    watched.needs = lambda number: number
    run(asked(character_model, tmp_path, 4, maxStaleness=4))
    assert [one.staleness for one in records(tmp_path)] == [0, 1, 1, 1]
    assert watched.ahead == ["base", "v000001", "v000002"]


def test_updates_go_on_while_a_batch_is_sampled_for_long(
    watched: Watched, character_model: Path, tmp_path: Path
) -> None:
    watched.needs = lambda number: 4 if number == 4 else 0
    run(asked(character_model, tmp_path, 6, maxStaleness=4))
    made = records(tmp_path)
    assert [one.step for one in made] == list(range(1, 7))
    assert all((one.staleness or 0) <= 4 for one in made)


@pytest.mark.parametrize("refills", [0, 2])
def test_rows_are_trained_in_their_order_and_once_in_each_epoch(
    watched: Watched, character_model: Path, tmp_path: Path, refills: int
) -> None:
    for most in (0, 4):
        wanted = asked(character_model, tmp_path / str(most), 99, maxStaleness=most, refillRounds=refills)
        run(with_spec(wanted, graders=[{"name": "three", "regex": {"pattern": "^3"}}]))
    in_turn, ahead = (rows(tmp_path / name) for name in ("0", "4"))
    assert ahead == in_turn
    assert len(set(ahead)) == len(ahead) == ROWS
    made = records(tmp_path / "4")
    assert max(one.staleness or 0 for one in made) > 1
    assert any(one.refilled_groups for one in made) == (refills > 0)


def test_a_run_that_is_killed_goes_on_behind_its_last_checkpoint_without_a_lost_or_repeated_row(
    watched: Watched, character_model: Path, tmp_path: Path
) -> None:
    before, killed = tmp_path / "before", tmp_path / "killed"

    def keep_the_third() -> None:
        if len(watched.settings) == 3:  # while step 3 trains, and batches up to 7 are queued
            shutil.copytree(before, killed)

    watched.on_update = keep_the_third
    wanted = with_spec(asked(character_model, before, 99, maxStaleness=4), checkpoint={"everySteps": 1})
    whole = run(wanted)
    assert [one.step for one in records(killed)] == [1, 2]
    watched.on_update = lambda: None
    paths = {"run_dir": str(killed), "dataset_path": str(killed / "rows.jsonl")}
    resumed = run(wanted.model_copy(update=paths))
    assert resumed.monitors.status.resumed_from_step == 2
    made = records(killed)
    assert [one.step for one in made] == list(range(1, len(made) + 1))
    assert [one.staleness for one in made[2:7]] == [0, 1, 2, 3, 4][: len(made) - 2]
    assert rows(killed) == rows(before)
    assert resumed.state.position == whole.state.position
    assert max(one.staleness or 0 for one in made) > 1


def test_an_evaluation_has_the_sampler_alone_and_uses_the_newest_version(
    watched: Watched, character_model: Path, tmp_path: Path
) -> None:
    wanted = asked(character_model, tmp_path, 3, maxStaleness=4)
    run(with_spec(wanted, evaluation={"fraction": 0.5, "everySteps": 1}))
    # The base's evaluation, the first batch, and an evaluation after each step.
    assert watched.evaluated == ["base", "base", "v000001", "v000002", "v000003"]


def test_a_sampler_that_fails_ahead_ends_the_run_after_the_batches_before(
    watched: Watched, character_model: Path, tmp_path: Path
) -> None:
    watched.fail_at = 4
    with pytest.raises(SamplerError, match="the sampler has ended"):
        run(asked(character_model, tmp_path, 9, maxStaleness=4))
    assert [one.step for one in records(tmp_path)] == [1, 2, 3]


def test_versions_of_steps_that_a_resumed_run_repeats_are_removed(
    watched: Watched, character_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "adapters" / "v000009").mkdir(parents=True)
    run(asked(character_model, tmp_path, 2))
    assert sorted(path.name for path in (tmp_path / "adapters").iterdir()) == ["v000001", "v000002"]
