"""Rollouts that are played side by side: each at its own pace, or all together, turn by turn."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from rft_run.errors import Preempted
from rft_trainer.rollout.engine import Generated, Request, SamplingParameters
from rft_trainer.rollout.players import Begin, Players, Steps, TurnPace

PARAMETERS = SamplingParameters(1.0, 1.0, 0, 8)


def request(*ids: int) -> Request:
    return Request(ids, 0, PARAMETERS)


class Theatre:
    """A fake engine and fake environments.

    The engine samples at once, and records its batches. An environment answers when the test calls
    ``answer``.
    """

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.acts: dict[int, Future[str]] = {}
        self.begun = threading.Condition()

    def sample(self, requests: Sequence[Request]) -> "Future[list[Generated]]":
        self.batches.append([one.prompt_token_ids[0] for one in requests])
        done: Future[list[Generated]] = Future()
        done.set_result([Generated(one.prompt_token_ids, (), "", "stop") for one in requests])
        return done

    def act(self, _slot: int, number: int) -> "Future[str]":
        with self.begun:
            self.acts[number] = Future()
            self.begun.notify_all()
        return self.acts[number]

    def answer(self, number: int) -> None:
        """Wait for a request to the environment of the rollout ``number``. Then answer this request."""
        with self.begun:
            assert self.begun.wait_for(lambda: number in self.acts, 10)
        self.acts.pop(number).set_result("")


def rollout(number: int, turns: int, ended: list[int]) -> Begin:
    """Return a rollout of ``turns`` turns. Its environment acts after each turn.

    When the rollout ends, its ``number`` is added to the list ``ended``.
    """

    def steps(_slot: int) -> Steps:
        for _ in range(turns):
            completion = yield request(number)
            assert completion.token_ids == (number,)
            yield number
        ended.append(number)

    return steps


def test_a_slow_environment_does_not_hold_up_the_other_rollouts() -> None:
    theatre, ended = Theatre(), list[int]()
    with ThreadPoolExecutor(1) as thread:
        players = Players(TurnPace(3), theatre.sample, theatre.act, lambda: False, batch_seconds=0)
        played = thread.submit(players.play, [rollout(number, 2, ended) for number in range(4)])
        for number in (1, 1, 2, 2, 3, 3):
            theatre.answer(number)
        assert theatre.acts.keys() == {0}
        theatre.answer(0)
        theatre.answer(0)
        played.result(10)
    assert ended == [1, 2, 3, 0]


def test_together_a_batch_waits_for_all_environments() -> None:
    theatre, ended = Theatre(), list[int]()
    with ThreadPoolExecutor(1) as thread:
        pace = TurnPace(2, batches=8, together=True)
        players = Players(pace, theatre.sample, theatre.act, lambda: False, batch_seconds=0)
        played = thread.submit(players.play, [rollout(number, 2, ended) for number in range(4)])
        for number in (1, 0, 0, 1, 3, 2, 3, 2):
            theatre.answer(number)
        played.result(10)
    assert theatre.batches == [[0, 1], [0, 1], [2, 3], [2, 3]]
    assert ended == [0, 1, 2, 3]


def test_turns_wait_a_little_for_others_where_the_engine_samples_one_batch_at_a_time() -> None:
    theatre, ended = Theatre(), list[int]()

    def later(_slot: int) -> Steps:
        yield 7
        yield from rollout(7, 1, ended)(0)

    with ThreadPoolExecutor(1) as thread:
        players = Players(TurnPace(2), theatre.sample, theatre.act, lambda: False, batch_seconds=600)
        played = thread.submit(players.play, [rollout(1, 1, ended), later])
        theatre.answer(7)
        theatre.answer(1)
        theatre.answer(7)
        played.result(10)
    assert theatre.batches == [[1, 7]]


def test_rollouts_stop_when_they_are_asked_to_and_are_closed() -> None:
    theatre, closed = Theatre(), list[int]()

    def steps(_slot: int) -> Steps:
        try:
            yield 1
        finally:
            closed.append(1)

    with pytest.raises(Preempted):
        Players(TurnPace(1), theatre.sample, theatre.act, lambda: True).play([steps])
    assert closed == [1]


def test_an_error_of_the_engine_ends_all_rollouts() -> None:
    failed: Future[list[Generated]] = Future()
    failed.set_exception(OSError("gone"))
    players = Players(TurnPace(2), lambda _: failed, Theatre().act, lambda: False)
    with pytest.raises(OSError, match="gone"):
        players.play([rollout(1, 1, []), rollout(2, 1, [])])


def test_an_error_ends_rollouts_whose_environments_still_act() -> None:
    found = iter([None, OSError("gone")])
    theatre = Theatre()
    players = Players(TurnPace(1), theatre.sample, theatre.act, lambda: False, failure=lambda: next(found))
    with pytest.raises(OSError, match="gone"):
        players.play([rollout(1, 1, [])])
    assert theatre.acts.keys() == {1}
