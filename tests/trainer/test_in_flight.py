"""With ``maxStaleness`` 4, several batches are in the sampler at the same time.

The sampler is in the test's process and samples by several adapters, as vLLM does.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rft_run.config import RunConfig
from rft_run.rollouts import read_rollouts
from rft_run.steps import read_steps
from rft_trainer import loop, setup
from rft_trainer.data.training import Batch
from rft_trainer.evaluate import evaluate
from rft_trainer.learn.update import update
from rft_trainer.loop import Run
from rft_trainer.publish import Publisher
from rft_trainer.rollout.engine import BASE_NAME, AdapterVersion, Request, SamplingParameters, rollout_seed
from rft_trainer.rollout.groups import rollout_requests
from rft_trainer.rollout.prefetch import Prefetch
from rft_trainer.rollout.routed import RoutedEngine
from rft_trainer.runtime import machine
from tests.trainer.inflight_support import SeveralAdapters, an_adapter
from tests.trainer.loop_support import rewarded, run, with_spec

SECONDS = 300


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Use one CPU thread for each sampler. With more threads, the samplers would wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture
def sampler(monkeypatch: pytest.MonkeyPatch, character_model: Path) -> SeveralAdapters:
    """Return the sampler of the test's runs. The runs sample ahead, although they use the CPU."""
    made = SeveralAdapters(character_model)
    monkeypatch.setattr(machine, "usable_cores", lambda: 1)
    monkeypatch.setattr(Run, "_probe_sampler", lambda _self, _parts: None)
    monkeypatch.setattr(setup, "overlaps", lambda spec, gpus: True)
    monkeypatch.setattr(setup, "start_engine", lambda *_: made)
    return made


def asked(model: Path, folder: Path, steps: int, **training: Any) -> RunConfig:
    wanted = rewarded(model, folder, **{"maxStaleness": 4} | training)
    return with_spec(wanted, stop={"maxSteps": steps}, preflight="off", evaluation={"fraction": 0})


def rows(folder: Path) -> list[list[int]]:
    """Return, for each step in order, the line numbers of its rows."""
    paths = sorted((folder / "rollouts").glob("step-*.zst"))
    return [list(dict.fromkeys(one.line for one in read_rollouts(path))) for path in paths]


def test_batches_begin_while_the_last_completions_of_others_are_held_back(
    sampler: SeveralAdapters, character_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, saved = 7, threading.Condition()
    newest = 0
    save = Publisher.save

    def noted_save(publisher: Publisher, version: int) -> None:
        nonlocal newest
        save(publisher, version)
        with saved:
            newest = version
            saved.notify_all()

    def until_the_step_before_is_trained(number: int) -> None:
        with saved:
            assert saved.wait_for(lambda: newest >= number - 1, SECONDS), "the trainer waits"

    updates = 0

    def update_once_all_have_begun(*arguments: Any) -> Any:
        nonlocal updates
        updates += 1
        wanted = min(updates + 4, steps)
        with sampler.changed:
            assert sampler.changed.wait_for(lambda: len(sampler.used) >= wanted, SECONDS), (
                "the batches must begin while completions of those before are held back"
            )
        return update(*arguments)

    monkeypatch.setattr(Publisher, "save", noted_save)
    monkeypatch.setattr(loop, "update", update_once_all_have_begun)
    sampler.hold = until_the_step_before_is_trained
    run(asked(character_model, tmp_path, steps))
    made = read_steps(tmp_path / "metrics.jsonl")
    assert [one.staleness for one in made] == [0, 1, 2, 3, 4, 4, 4]
    assert sampler.used == ["base"] * 5 + ["v000001", "v000002"]
    assert sampler.most_running == 4
    assert sampler.most_loaded <= 4
    lines = [line for step in rows(tmp_path) for line in step]
    assert len(set(lines)) == len(lines)


def test_with_refills_rows_keep_their_order_and_each_batch_its_version(
    sampler: SeveralAdapters, character_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queues: list[Prefetch] = []
    batches: dict[int, set[str]] = {}

    class Queue(Prefetch):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            queues.append(self)

    def update_once_all_are_sampled(*arguments: Any) -> Any:
        queues[-1].wait()
        return update(*arguments)

    def noted(prompts: Any, count: int, parameters: Any, seed: int, step: int, adapter: str | None) -> Any:
        batches.setdefault(step, set()).add(adapter or "newest")
        return rollout_requests(prompts, count, parameters, seed, step, adapter)

    monkeypatch.setattr(loop, "Prefetch", Queue)
    monkeypatch.setattr(loop, "update", update_once_all_are_sampled)
    monkeypatch.setattr(loop, "rollout_requests", noted)
    three = [{"name": "three", "regex": {"pattern": "^3"}}]
    for most in (4, 0):
        sampler.use_adapter(None)
        batches.clear()
        wanted = asked(character_model, tmp_path / str(most), 99, maxStaleness=most, refillRounds=2)
        run(with_spec(wanted, graders=three))
        assert all(len(names) == 1 for names in batches.values())
        assert len(batches) > 2
    ahead, in_turn = ([line for step in rows(tmp_path / name) for line in step] for name in ("4", "0"))
    assert ahead == in_turn
    assert len(set(ahead)) == len(ahead) == 70
    made = read_steps(tmp_path / "4" / "metrics.jsonl")
    assert max(one.staleness or 0 for one in made) > 1
    assert any(one.refilled_groups for one in made)


def test_an_evaluation_has_the_sampler_alone_and_uses_the_newest_version(
    sampler: SeveralAdapters, character_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone: list[tuple[str, int]] = []

    def noted(*arguments: Any) -> Any:
        alone.append((sampler._current, sampler.running))
        sampler.most_running = 0
        found = evaluate(*arguments)
        assert sampler.most_running == 1
        return found

    monkeypatch.setattr(loop, "evaluate", noted)
    run(with_spec(asked(character_model, tmp_path, 2), evaluation={"fraction": 0.2, "everySteps": 1}))
    assert alone == [("base", 0), ("v000001", 0), ("v000002", 0)]


def test_the_time_in_which_the_trainer_waits_for_the_sampler_counts(
    sampler: SeveralAdapters, character_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]

    class Slow(Prefetch):
        """Waits 100 s for each batch that is sampled ahead, and 1000 s before an evaluation."""

        @property
        def batch(self) -> Batch | None:
            clock[0] += 100.0 if self.begun else 0.0
            return super().batch

        @contextmanager
        def paused(self) -> Iterator[None]:
            with super().paused():
                clock[0] += 1000.0
                yield

    monkeypatch.setattr(loop, "Prefetch", Slow)
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    wanted = with_spec(asked(character_model, tmp_path, 3), evaluation={"fraction": 0.2, "everySteps": 3})
    made = run(wanted.model_copy(update={"gpus": 1}))
    assert [one.step_seconds for one in read_steps(tmp_path / "metrics.jsonl")] == [0.0, 100.0, 100.0]
    assert made.state.gpu_seconds == 1200.0


def test_two_batches_share_two_samplers_of_which_one_dies(character_model: Path, tmp_path: Path) -> None:
    adapter = an_adapter(character_model, tmp_path, "v000001")
    drawn = SamplingParameters(1.0, 1.0, 0, 12)
    batches = {
        name: [
            Request((*range(2, 4 + group), group + 2), rollout_seed(name, group, number), drawn, name)
            for group in range(6)
            for number in range(4)
        ]
        for name in (BASE_NAME, adapter.name)
    }
    alone = SeveralAdapters(character_model)
    alone.use_adapter(adapter)
    wanted = {name: alone.generate(requests) for name, requests in batches.items()}
    unpinned = [replace(request, adapter=None) for request in batches[BASE_NAME]]
    assert alone.generate(unpinned) != wanted[BASE_NAME], "the adapter must change completions"

    members: list[SeveralAdapters] = []

    def make(_number: int, _stop: Callable[[], bool]) -> SeveralAdapters:
        members.append(SeveralAdapters(character_model))
        return members[-1]

    with closing(RoutedEngine(make, 2)) as engine, ThreadPoolExecutor(2) as threads:
        assert (engine.adapters, engine.concurrency) == (4, 512)
        engine.use_adapter(adapter)
        engine.use_adapter(AdapterVersion("v000002", adapter.path), [adapter])
        members[1].dies = True
        counted = {name: list[None]() for name in batches}
        running = {
            name: threads.submit(
                engine.generate, requests, lambda: False, partial(counted[name].append, None)
            )
            for name, requests in batches.items()
        }
        for name, call in running.items():
            assert [one.token_ids for one in call.result(SECONDS)] == [one.token_ids for one in wanted[name]]
        assert engine.restarts == 1
        assert [len(counted[name]) for name in batches] == [24, 24], "each completion must be counted once"
