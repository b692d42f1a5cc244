"""Plays many rollouts of several turns at the same time, without waiting of one rollout for another.

A rollout is a generator. When the model must make a turn, the generator yields a ``Request`` and is resumed
with the completion. When the environment must act, the generator yields any other object and is resumed with
the reply of the environment.
"""

import queue
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from rft_run.errors import Preempted
from rft_trainer.rollout.engine import Generated, Request

Steps = Generator[Any, Any, None]
Begin = Callable[[int], Steps]
"""A function that begins a rollout and returns its generator.

The parameter is the number of the slot in which the rollout is played.
"""

_POLL_SECONDS = 0.25
_PATIENCE = 0.1
"""How long requested turns wait for further turns before they are sampled as a batch.

The number is a share of the last batch's sampling time. It is used only while environments act, and only for
engines that sample one batch at a time.
"""
FIRST_BATCH_SECONDS = 10.0
"""The assumed sampling time of a batch, in seconds. It is used until the first batch has been sampled."""


@dataclass(frozen=True)
class TurnPace:
    """How many rollouts of several turns are played at the same time, and how their turns form batches.

    - ``slots``: number of rollouts that are played at the same time.
    - ``batches``: number of batches of turns that the engine can sample at the same time. With 1, a turn that
      is requested after the start of a batch waits until the batch ends. So turns wait a little for other
      turns before a batch starts.
    - ``together``: whether turns are sampled only when every open rollout waits for a turn. Then the batches
      do not depend on timing.
    """

    slots: int
    batches: int = 1
    together: bool = False


class Players:
    """Plays rollouts of several turns in a number of slots. In each slot, one rollout follows another."""

    def __init__(
        self,
        pace: TurnPace,
        sample: Callable[[Sequence[Request]], "Future[list[Generated]]"],
        act: Callable[[int, Any], "Future[Any]"],
        should_stop: Callable[[], bool],
        batch_seconds: float = FIRST_BATCH_SECONDS,
        failure: Callable[[], Exception | None] = lambda: None,
    ) -> None:
        """Store the settings. No rollout begins.

        - ``sample``: begins to sample a batch of turns of the model.
        - ``act``: begins an action of the environment in a slot. Gets the slot's number and the action.
        - ``should_stop``: returns whether the run should stop.
        - ``batch_seconds``: sampling time of the last batch, in seconds.
        - ``failure``: returns an error that ends all rollouts at once, or None if there is no such error.
        """
        self.batch_seconds = batch_seconds
        self._failure = failure
        self._sample, self._act, self._should_stop = sample, act, should_stop
        self._together, self._batches = pace.together, 1 if pace.together else pace.batches
        self._free = deque(range(pace.slots))
        self._rollouts: dict[int, tuple[int, Steps]] = {}
        """Slot and generator of each open rollout, by the number of the rollout."""
        self._acting: set[int] = set()
        self._turns: dict[int, Request] = {}
        """The turns that wait to be sampled, by the number of the rollout."""
        self._waits_since = 0.0
        self._sampling = 0
        self._events: queue.SimpleQueue[tuple[Sequence[int], Future[Any]]] = queue.SimpleQueue()
        self._replies: dict[int, Any] = {}
        """Completions and environments' replies that have not been passed to their rollouts yet.

        A key is the number of a rollout.
        """

    def play(self, rollouts: Sequence[Begin]) -> None:
        """Play all rollouts to their ends. They begin in the order of ``rollouts``.

        Raises Preempted if the run should stop. Also raises the error that the callback ``failure`` returns,
        and the errors of sampling, of the environments' actions and of the rollouts.
        """
        waiting = deque(enumerate(rollouts))
        try:
            while waiting or self._rollouts:
                if not (self._together and self._busy):
                    while waiting and self._free:
                        number, begin = waiting.popleft()
                        slot = self._free.popleft()
                        self._rollouts[number] = slot, begin(slot)
                        self._resume(number, None)
                if self._due:
                    self._begin_batch()
                elif self._busy or self._turns:
                    self._take()
        finally:
            for _, steps in self._rollouts.values():
                steps.close()

    @property
    def _busy(self) -> bool:
        return bool(self._acting or self._sampling)

    @property
    def _due(self) -> bool:
        """Whether to sample the requested turns of the model now, instead of waiting for further turns."""
        if not self._turns or self._sampling >= self._batches:
            return False
        return not self._acting or (not self._together and self._seconds_left <= 0)

    @property
    def _seconds_left(self) -> float:
        """Seconds for which the requested turns still wait for further turns before they are sampled.

        A negative number: they have waited long enough.
        """
        patience = _PATIENCE * self.batch_seconds if self._batches == 1 else 0.0
        return self._waits_since + patience - time.monotonic()

    def _begin_batch(self) -> None:
        numbers = sorted(self._turns)
        requests = [self._turns.pop(number) for number in numbers]
        self._sampling += 1
        began = time.monotonic()

        def ended(future: "Future[list[Generated]]") -> None:
            self.batch_seconds = time.monotonic() - began
            self._events.put((numbers, future))

        self._sample(requests).add_done_callback(ended)

    def _take(self) -> None:
        """Wait at most ``_POLL_SECONDS`` for completions or environments' replies. Resume their rollouts.

        Raises Preempted if the run should stop. Also raises the error that the callback ``failure`` returns,
        and the errors of sampling and of the environments' actions.
        """
        if self._should_stop():
            raise Preempted("asked to stop while rollouts were played")
        if (error := self._failure()) is not None:
            raise error
        soon = bool(self._turns) and self._sampling < self._batches and not self._together
        timeout = min(_POLL_SECONDS, max(0.0, self._seconds_left)) if soon else _POLL_SECONDS
        try:
            self._note(*self._events.get(timeout=timeout))
            while True:
                self._note(*self._events.get_nowait())
        except queue.Empty:
            pass
        if not (self._together and self._busy):
            for number in sorted(self._replies):
                self._resume(number, self._replies.pop(number))

    def _note(self, numbers: Sequence[int], future: "Future[Any]") -> None:
        found = future.result()
        if numbers[0] in self._acting:
            self._acting.discard(numbers[0])
            self._replies[numbers[0]] = found
        else:
            self._sampling -= 1
            self._replies |= zip(numbers, found, strict=True)

    def _resume(self, number: int, value: Any) -> None:
        """Pass ``value`` to a rollout, and run the rollout until it needs a completion or a reply, or ends.

        ``value``: the completion or the environment's reply for which the rollout has waited. None: the
        rollout begins.
        """
        slot, steps = self._rollouts[number]
        try:
            asked = steps.send(value)
        except StopIteration:
            del self._rollouts[number]
            self._free.append(slot)
            return
        if isinstance(asked, Request):
            if not self._turns:
                self._waits_since = time.monotonic()
            self._turns[number] = asked
        else:
            self._acting.add(number)
            self._act(slot, asked).add_done_callback(lambda future: self._events.put(([number], future)))
