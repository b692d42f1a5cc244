"""Samples the next batches of rollouts while the policy is trained on the current batch.

When a step begins, the batches of the next ``maxStaleness`` steps may be sampled, but not those of later
steps. A batch is sampled by the adapter that is the newest when the sampling of this batch begins. So this
adapter is at most ``maxStaleness`` versions older than the policy that is trained on the batch.

With one batch ahead, a step takes as long as its sampling or its update, whichever is longer. With more
batches ahead, this is true only on average: a step takes as long as the average sampling or the average
update, whichever is longer.

If the sampler can have several adapters at the same time, several batches may be in the sampler. Then the
next batch begins while the last completions of the batches before are still sampled. ``may_follow`` decides
when it begins. Otherwise the batches are sampled one after another.

For every batch, also one that was sampled ahead, the importance ratio compares the policy with the trainer's
policy before the batch's first optimizer step. Only the mismatch weight corrects for the older adapter: it is
a token's probability in the trainer divided by that in the sampler. For batches that were sampled ahead, this
weight has a lower and an upper bound.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rft_run.state import Position
from rft_trainer.data.training import Batch
from rft_trainer.rollout.groups import SampledBatch


@dataclass(frozen=True)
class Ahead:
    """A batch that was sampled before its training step began: its prompts, and its sampled groups.

    After the last epoch the batch has no prompts, and ``sampled`` is None.
    """

    batch: Batch
    sampled: SampledBatch | None


def may_follow(unanswered: int, largest: int, slots: int) -> bool:
    """Return whether the sampling of the next batch may begin while other batches are in the sampler.

    - ``unanswered``: number of requested completions that have not arrived, of all batches in the sampler.
    - ``largest``: number of all completions of the largest of these batches. The last batch of an epoch may
      be small.
    - ``slots``: number of completions that the sampler decodes at the same time.

    There are two conditions: the sampler has free slots, and ``unanswered`` is at most half of ``largest``.
    If the next batch began earlier, it would get an older adapter, and the sampler would not be faster.
    """
    return unanswered < slots and 2 * unanswered <= largest


class SamplingState:
    """Progress of the sampling of one batch: how many completions were requested, and how many arrived.

    Any thread may call the methods.
    """

    def __init__(self, changed: threading.Condition) -> None:
        """Begin with no requested completions. ``changed``: a condition that is notified of each change."""
        self._changed = changed
        self.asked = 0
        """Number of completions that were requested so far.

        It includes refills: completions that are requested later, for groups in which all rewards are equal.
        """
        self.answered = 0
        """Number of requested completions that have arrived."""
        self.after: Position | None = None
        """Position in the data where the next batch begins. None: not known yet.

        It is not known while more prompts may be added to this batch.
        """
        self.ended = False
        """Whether the batch is complete (sampled and graded), or its sampling has failed."""

    def ask(self, completions: int) -> None:
        """Record that ``completions`` more completions were requested."""
        with self._changed:
            self.asked += completions
            self._changed.notify_all()

    def answer(self) -> None:
        """Record that a completion has arrived from the sampler."""
        with self._changed:
            self.answered += 1
            self._changed.notify_all()

    def ends_at(self, after: Position) -> None:
        """Record that this batch takes no more rows of the dataset.

        ``after``: the position in the data where the next batch begins.
        """
        with self._changed:
            self.after = after
            self._changed.notify_all()


class Prefetch:
    """Queue of batches that are sampled in threads, while the policy is trained on an earlier batch.

    It is a context manager. On exit from ``with``, it waits for the batches that are being sampled, and
    discards all batches. After the exit no sampling begins. After an error in a ``paused`` block no sampling
    begins either.
    """

    def __init__(self, depth: int, slots: int | None = None) -> None:
        """Make an empty queue.

        - ``depth``: maximum number of batches that are sampled before their training step begins.
        - ``slots``: number of completions that the sampler decodes at the same time. None: the batches are
          sampled one after another.
        """
        self.depth, self._slots = depth, slots
        self._threads = ThreadPoolExecutor(1 if slots is None else depth, "sampling")
        self._begun: deque[tuple[Future[Ahead], SamplingState]] = deque()
        self._changed = threading.Condition()
        """Protects the attributes below against concurrent changes. It is notified after each change."""
        self._running: list[SamplingState] = []
        """The progress of each batch that is being sampled."""
        self._paused = self._closed = False
        self._error: BaseException | None = None
        """The error of the first batch that failed. After this error no further batch is begun."""
        self.failed = False
        """Whether an error ends the run. If so, the sampling of the current batches may stop."""

    def __enter__(self) -> Self:
        """Return this object. Sampling begins with calls of ``begin``."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the batches that are being sampled, and discard all batches. No sampling begins later."""
        with self._changed:
            self._closed, self.failed = True, self.failed or error is not None
            self._changed.notify_all()
        self._threads.shutdown(wait=True, cancel_futures=True)

    @property
    def begun(self) -> int:
        """Number of batches in the queue: ``begin`` has added them, and ``take`` has not removed them yet."""
        return len(self._begun)

    @property
    def batch(self) -> Batch | None:
        """The first batch in the queue. None: the queue is empty.

        Waits until the first batch is sampled. Raises the error of its sampling.
        """
        return self._begun[0][0].result().batch if self._begun else None

    def begin(self, after: Position, sample: Callable[[Position, SamplingState], Ahead]) -> None:
        """Add a batch to the queue, and let a thread sample it with ``sample``.

        ``sample`` gets the position in the data where the batch begins. If the queue is empty, this is
        ``after``, else the end of the last batch in the queue. If a batch failed, a batch that begins later
        fails with the same error.
        """
        before = self._begun[-1][1] if self._begun else None
        own = SamplingState(self._changed)

        def work() -> Ahead:
            position = self._enter(own, before, after)
            try:
                made = sample(position, own)
                own.ends_at(made.batch.after)
                return made
            except BaseException as error:
                with self._changed:
                    self._error = self._error or error
                raise
            finally:
                self._leave(own)

        self._begun.append((self._threads.submit(work), own))

    def _enter(self, own: SamplingState, before: SamplingState | None, after: Position) -> Position:
        """Wait until the sampling of a batch may begin. Return the position in the data where it begins.

        ``before``: the previous batch in the queue. The position is the end of this batch. None: there is no
        previous batch, and the position is ``after``.

        Raises CancelledError after the end of the run, and the error of a batch that failed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or (not self._paused and self._may_begin(before)))
            if self._closed:
                raise CancelledError("the run has ended, so no more batches are sampled ahead")
            if self._error is not None:
                raise self._error
            self._running.append(own)
            if before is None:
                return after
            assert before.after is not None
            return before.after

    def _may_begin(self, before: SamplingState | None) -> bool:
        if before is None or before.ended or self._error is not None:
            return True
        if self._slots is None or before.after is None or before.asked == 0:
            return False
        unanswered = sum(one.asked - one.answered for one in self._running)
        return may_follow(unanswered, max(one.asked for one in self._running), self._slots)

    def _leave(self, own: SamplingState) -> None:
        with self._changed:
            own.ended = True
            self._running.remove(own)
            self._changed.notify_all()

    def wait(self) -> None:
        """Wait until all batches in the queue are sampled.

        If sampling failed, no error is raised here. Then ``batch`` and ``take`` raise it.
        """
        for future, _ in self._begun:
            future.exception()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """In the ``with`` block, sample no batch in the background, so that the block may use the sampler.

        Before the block, wait for the batches that are being sampled. Batches that have not begun wait until
        the end of the block.
        """
        with self._changed:
            self._paused = True
            self._changed.wait_for(lambda: not self._running)
        try:
            yield
        except BaseException:
            with self._changed:
                self._closed = self.failed = True
            raise
        finally:
            with self._changed:
                self._paused = False
                self._changed.notify_all()

    def take(self) -> SampledBatch | None:
        """Remove the first batch from the queue, and return its sampled groups.

        Waits until the batch is sampled, and raises the error of its sampling. Return None if the queue is
        empty, or if the batch has no prompts because the last epoch has ended.
        """
        return self._begun.popleft()[0].result().sampled if self._begun else None
