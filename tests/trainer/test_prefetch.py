"""Prefetch samples the next batch during an update, but not while an adapter is published."""

import json
import threading
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from rft_run.errors import Preempted, SamplerError
from rft_run.rollouts import read_rollouts
from rft_trainer import loop, setup
from rft_trainer.engines import start_engine
from rft_trainer.learn.update import update
from rft_trainer.loop import Run
from rft_trainer.rollout.engine import AdapterVersion, Generated, Request, unnoticed
from rft_trainer.runtime import machine
from tests.trainer.loop_support import config, run, with_spec


class Watched:
    """A sampler that records the calls of its methods. Like vLLM, it has its own copy of the model."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._current = "base"
        self.calls: list[tuple[str, str, bool]] = []
        """For each call: its name, the adapter in use, and whether the main thread made the call."""
        self.restarts = 0
        self.close = engine.close
        self.fail_at = 0
        """The number, from 1, of the call of ``generate`` that fails. 0: none fails."""
        self.updating = threading.Event()

    def note(self, what: str) -> None:
        self.calls.append((what, self._current, threading.current_thread() is threading.main_thread()))

    def use_adapter(self, adapter: AdapterVersion | None, _kept: Sequence[AdapterVersion] = ()) -> None:
        self._current = adapter.name if adapter is not None else "base"
        self.note("adapter")
        self._engine.use_adapter(adapter)

    def generate(
        self,
        requests: Sequence[Request],
        should_stop: Callable[[], bool] = lambda: False,
        answered: Callable[[], None] = unnoticed,
    ) -> list[Generated]:
        self.note("begin")
        if self.fail_at and len([call for call in self.calls if call[0] == "begin"]) == self.fail_at:
            raise SamplerError("the sampler has ended")
        if threading.current_thread() is not threading.main_thread():
            assert self.updating.wait(60), "the update must begin while the next batch is sampled"
        found: list[Generated] = self._engine.generate(requests, should_stop, answered)
        self.note("end")
        return found


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[Watched]:
    """Return a list that gets the samplers of a test's runs. The runs prefetch, although they use the CPU."""
    monkeypatch.setattr(machine, "usable_cores", lambda: 1)
    monkeypatch.setattr(Run, "_probe_sampler", lambda _self, _parts: None)
    monkeypatch.setattr(setup, "overlaps", lambda spec, gpus: True)
    made: list[Watched] = []

    def watch(*arguments: Any) -> Watched:
        made.append(Watched(start_engine(*arguments)))
        return made[-1]

    def watched_update(*arguments: Any) -> Any:
        made[-1].note("update")
        made[-1].updating.set()
        result = update(*arguments)
        made[-1].note("updated")
        return result

    monkeypatch.setattr(setup, "start_engine", watch)
    monkeypatch.setattr(loop, "update", watched_update)
    return made


def lines(folder: Path) -> list[list[int]]:
    """Return, for each step in order, the line numbers of its rows."""
    paths = sorted((folder / "rollouts").glob("step-*.zst"))
    return [list(dict.fromkeys(one.line for one in read_rollouts(path))) for path in paths]


def test_each_batch_is_sampled_while_the_one_before_is_trained_on(
    watched: list[Watched], character_model: Path, tmp_path: Path
) -> None:
    asked = config(character_model, tmp_path / "run")
    finished = run(asked)
    assert finished.state.step == 3
    (sampler,) = watched
    calls = sampler.calls
    ahead = [number for number, (what, _, main) in enumerate(calls) if what == "begin" and not main]
    # The base model samples the second batch, because no adapter exists yet. The third batch is sampled by
    # the adapter of the first step.
    assert [calls[number][1] for number in ahead] == ["base", "v000001"]
    for number in ahead:
        meanwhile = [what for what, _, _ in calls[number + 1 :]]
        until_published = meanwhile[: meanwhile.index("adapter")]
        assert sorted(set(until_published) - {"update"}) == ["end", "updated"], (
            "sampling and update must end before the adapter is published"
        )


def test_rows_are_trained_in_the_same_order_as_without(
    watched: list[Watched], character_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = config(character_model, tmp_path / "ahead")
    run(ahead)
    monkeypatch.setattr(setup, "overlaps", lambda spec, gpus: False)
    run(config(character_model, tmp_path / "in-turn"))
    # The sizes of steps differ: prefetch chooses a batch before the lengths of the previous one are known.
    one, other = (list(chain(*lines(tmp_path / folder))) for folder in ("ahead", "in-turn"))
    assert len(set(one)) == len(one)
    assert min(len(one), len(other)) > 20
    assert one[: len(other)] == other[: len(one)]
    assert all(main for _, _, main in watched[1].calls), "without prefetch only the main thread may sample"


def test_a_run_that_is_preempted_while_it_samples_ahead_goes_on_behind_the_last_whole_step(
    watched: list[Watched], character_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = config(character_model, tmp_path / "cut")

    def once_ahead() -> bool:
        return bool(watched) and any(what == "begin" and not main for what, _, main in watched[0].calls)

    with pytest.raises(Preempted):
        run(asked, once_ahead)
    assert threading.active_count() < 20
    resumed = run(asked)
    assert resumed.monitors.status.resumed_from_step in (0, 1)
    assert [row["step"] for row in _metrics(tmp_path / "cut")] == [1, 2, 3]


def test_a_sampler_that_fails_ahead_ends_the_run_at_its_turn(
    watched: list[Watched], character_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Run._step

    def fail_the_next(self: Run, *arguments: Any) -> None:
        (sampler,) = watched
        if not sampler.fail_at:
            # This step samples its own batch first. The second call is the prefetch, which fails.
            sampler.fail_at = len([call for call in sampler.calls if call[0] == "begin"]) + 2
        step(self, *arguments)

    monkeypatch.setattr(Run, "_step", fail_the_next)
    with pytest.raises(SamplerError, match="the sampler has ended"):
        run(config(character_model, tmp_path / "run"))
    assert [row["step"] for row in _metrics(tmp_path / "run")] == [1], (
        "the step before the failure must be complete"
    )


def _metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_batch_that_was_sampled_ahead_is_not_compared_with_the_policy_that_has_moved_since(
    watched: list[Watched], character_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[str] = []
    monkeypatch.setattr(loop, "refuse_mismatch", lambda _found, when: compared.append(when))
    run(config(character_model, tmp_path))
    assert len(_metrics(tmp_path)) > 1
    assert compared == ["step 1"]


def test_a_batch_that_was_sampled_ahead_is_compared_with_a_policy_that_has_not_moved_since(
    watched: list[Watched], character_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[str] = []
    monkeypatch.setattr(loop, "refuse_mismatch", lambda _found, when: compared.append(when))
    never = [{"name": "never", "regex": {"pattern": "[a-z]{99}"}}]
    run(with_spec(config(character_model, tmp_path, klBeta=0), graders=never, preflight="off"))
    assert [row["updates"] for row in _metrics(tmp_path)] == [0, 0, 0], "equal rewards make no optimizer step"
    assert any(what == "begin" and not main for what, _, main in watched[0].calls)
    assert compared == ["step 1", "step 2", "step 3"]
