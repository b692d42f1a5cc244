"""Several samplers of one run.

The prompt decides which sampler gets a request. If a sampler dies, the other samplers continue. All
samplers get each adapter.
"""

import json
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rft_api.status import Plan
from rft_run.errors import Preempted, SamplerError
from rft_trainer.engines import roles_apart, sampler_devices, samplers
from rft_trainer.rollout import routed
from rft_trainer.rollout.engine import (
    ConnectionLost,
    Generated,
    Request,
    SamplingParameters,
    rollout_seed,
    unnoticed,
)
from rft_trainer.rollout.routed import RoutedEngine, route
from rft_trainer.rollout.transformers_engine import TransformersEngine
from rft_trainer.runtime import machine
from tests.trainer.inflight_support import an_adapter
from tests.trainer.loop_support import config, run, with_spec

DRAWN = SamplingParameters(1.0, 1.0, 0, 12)


def asked(groups: int, rollouts: int = 3) -> list[Request]:
    """Return the requests of ``groups`` groups of ``rollouts`` rollouts. Prompts have different lengths."""
    return [
        Request((*range(2, 4 + group % 9), group % 11 + 2), rollout_seed(0, group, number), DRAWN)
        for group in range(groups)
        for number in range(rollouts)
    ]


class Mortal(TransformersEngine):
    """A sampler that dies once, as vLLM would: it loses the connection after ``dies_after`` answers."""

    dies_after: int | None = None
    """Number of answers after which the sampler dies. None: it does not die."""
    gone = False
    """Whether this sampler cannot be restarted after it died."""

    def attempt(
        self,
        requests: dict[int, Request],
        done: dict[int, Generated],
        should_stop: Callable[[], bool],
        answered: Callable[[], None] = unnoticed,
    ) -> None:
        keys = sorted(requests)
        if self.dies_after is None:
            super().attempt(requests, done, should_stop, answered)
            return
        first, self.dies_after = keys[: self.dies_after], None
        super().attempt({key: requests[key] for key in first}, done, should_stop, answered)
        raise ConnectionLost("killed")

    def recover(self, cause: ConnectionLost) -> None:
        if self.gone:
            raise SamplerError(f"died again and again ({cause})")
        super().recover(cause)


class Recorded(dict[int, Generated]):
    """Completions by the numbers of their requests. Adding a second completion of a request is an error."""

    def __ior__(self, other: object) -> "Recorded":  # type: ignore[override, misc]
        found = dict(other)  # type: ignore[call-overload]
        assert not found.keys() & self.keys(), "an answer was counted twice"
        self.update(found)
        return self


@pytest.fixture(autouse=True)
def one_thread_for_each_sampler() -> None:
    """Use one CPU thread for each sampler. With more threads, the samplers would wait for each other."""
    torch.set_num_threads(1)


def several(model: Path, count: int) -> tuple[RoutedEngine, list[Mortal]]:
    made: list[Mortal] = []

    def make(_number: int, _stop: Callable[[], bool]) -> Mortal:
        made.append(Mortal(model, "cpu", "float32"))
        return made[-1]

    return RoutedEngine(make, count), made


@given(st.integers(0, 40), st.integers(1, 8), st.integers(1, 5))
def test_groups_stay_whole_and_no_sampler_gets_more_than_its_share(
    groups: int, rollouts: int, count: int
) -> None:
    requests = dict(enumerate(asked(groups, rollouts)))
    shares = route(requests, range(count))
    assert sorted(key for share in shares.values() for key in share) == sorted(requests)
    homes = [
        Counter(request.prompt_token_ids for request in share.values()).keys() for share in shares.values()
    ]
    prompts = {request.prompt_token_ids for request in requests.values()}
    assert sum(map(len, homes)) == len(prompts), "one sampler must get the whole group"
    assert max(map(len, homes)) <= -(-len(prompts) // count)


def test_a_prompt_has_the_same_home_in_every_step_and_only_those_of_a_dead_sampler_move() -> None:
    (request,) = asked(1, 1)
    before = {
        prompt: next(n for n, share in route({0: Request(prompt, 0, DRAWN)}, range(4)).items() if share)
        for prompt in [(*request.prompt_token_ids, token) for token in range(40)]
    }
    assert set(before.values()) == {0, 1, 2, 3}
    for prompt, home in before.items():
        shares = route({7: Request(prompt, 9, DRAWN)}, [0, 1, 3])
        now = next(number for number, share in shares.items() if share)
        assert now == home or home == 2


@pytest.mark.parametrize("count", [2, 4])
def test_several_samplers_give_the_completions_of_one(character_model: Path, count: int) -> None:
    requests = asked(6)
    alone = TransformersEngine(character_model, "cpu", "float32").generate(requests)
    engine, members = several(character_model, count)
    with closing(engine):
        found = engine.generate(requests)
    assert [one.token_ids for one in found] == [one.token_ids for one in alone]
    assert len(members) == count


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("gone", [False, True])
def test_a_sampler_that_dies_ends_nothing_and_no_answer_is_counted_twice(
    character_model: Path, count: int, gone: bool
) -> None:
    requests = asked(8)
    engine, members = several(character_model, count)
    with closing(engine):
        whole = engine.generate(requests)
        members[1].dies_after, members[1].gone = 2, gone
        done = Recorded()
        while len(done) < len(requests):
            missing = {key: one for key, one in enumerate(requests) if key not in done}
            engine._attempt(missing, done, lambda: False)
        assert [done[key].token_ids for key in range(len(requests))] == [one.token_ids for one in whole]
        again = engine.generate(requests)
        assert [one.token_ids for one in again] == [one.token_ids for one in whole]
        assert engine.restarts == (0 if gone else 1)
        assert (engine._members[1].lost is not None) == gone


def test_the_run_ends_with_the_samplers_error_when_none_is_left(character_model: Path) -> None:
    engine, members = several(character_model, 2)
    with closing(engine):
        for member in members:
            member.dies_after, member.gone = 1, True
        with pytest.raises(SamplerError, match="died again and again"):
            engine.generate(asked(6))


class Shared:
    """Replaces a sampler whose restart has ended, but was not noticed yet.

    The first ``reads`` reads of ``restarting`` return a finished future. Later reads return None, and set
    ``ready`` to True.
    """

    lost = None

    def __init__(self, reads: int) -> None:
        self._left, self._restart = reads, Future[None]()
        self._restart.set_result(None)
        self.ready = False

    @property
    def restarting(self) -> Future[None] | None:
        self._left -= 1
        self.ready = self._left < 0
        return None if self.ready else self._restart


@pytest.mark.parametrize("reads", [0, 1])
def test_a_sampler_is_found_although_another_thread_takes_note_of_its_restart(reads: int) -> None:
    engine, member = several(Path(), 0)[0], Shared(reads)
    engine._members = [member]  # type: ignore[list-item]
    found: list[object] = list(engine._live())
    assert found == [member]


def test_a_stop_reaches_all_samplers(character_model: Path) -> None:
    engine, _ = several(character_model, 2)
    with closing(engine), pytest.raises(Preempted):
        engine.generate(asked(4), lambda: True)
    assert threading.active_count() < 20


def test_an_adapter_is_published_to_all_and_one_without_it_is_found(
    character_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An adapter changes the log-probs of so small a random model too little for the usual limit.
    monkeypatch.setattr(routed, "LARGEST_DIFFERENCE", 0.01)
    adapter, text = an_adapter(character_model, tmp_path), [2, 3, 4, 5, 6, 7]
    engine, members = several(character_model, 2)
    with closing(engine):
        base = engine.logprobs(text)
        engine.use_adapter(adapter)
        moved = engine.logprobs(text)
        assert moved != base
        for member in members:
            assert member.logprobs(text) == pytest.approx(moved, abs=1e-4)
        members[1].use_adapter(None)
        with pytest.raises(SamplerError, match=r"samplers 0 and 1 .* does not use the current adapter"):
            engine.logprobs(text)


def test_a_run_with_four_samplers_makes_the_steps_of_a_run_with_one(
    character_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        machine, "usable_cores", lambda: 1
    )  # with more threads the samplers would wait for each other

    def rewards(name: str, count: int) -> list[tuple[int, float]]:
        wanted = with_spec(
            config(character_model, tmp_path / name, maxContextLength=128),
            graders=[{"name": "digit", "regex": {"pattern": "^[0-9]"}}],
        )
        run(wanted.model_copy(update={"plan": Plan(sampler_servers=count)}))
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        return [(row["completionTokens"], row["reward"]) for row in map(json.loads, lines)]

    assert rewards("four", 4) == rewards("one", 1)


def test_a_plan_gives_each_sampler_its_gpus(
    character_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    made = config(character_model, tmp_path).model_copy(update={"device": "cuda", "gpus": 8})

    def devices(size: int, **plan: int) -> tuple[bool, list[str | None]]:
        asked = made.model_copy(update={"plan": Plan(gpus=8, **plan)})  # type: ignore[arg-type]
        assert samplers(asked) == plan.get("sampler_servers", 1)
        return roles_apart(asked), sampler_devices(asked, size)

    assert devices(1, trainer_gpus=5, sampler_gpus=3, sampler_servers=3) == (True, ["5", "6", "7"])
    assert devices(4, trainer_gpus=2, sampler_gpus=8, sampler_servers=2) == (False, ["0,1,2,3", "4,5,6,7"])
    assert devices(4, trainer_gpus=4, sampler_gpus=4) == (True, ["4,5,6,7"]), (
        "a plan of an older release, without a number of samplers, means one sampler"
    )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "9,8,7,6,5,4,3,2")
    assert devices(1, trainer_gpus=6, sampler_gpus=2, sampler_servers=2) == (True, ["3", "2"])
