"""Samples the next batches while the current one is trained on.

One thread samples one batch after another. When a step begins, the sampling of the batches of the next
``maxStaleness`` steps may begin too, but of no later ones. A batch is sampled by the newest adapter that is
saved when its sampling begins. So this adapter is at most ``maxStaleness`` versions older than the policy
that is trained on the batch.

With one batch ahead, a step takes the time of its sampling or of its update, whichever is longer. With more
batches ahead, only the averages over several steps count: the average time of sampling or that of the update,
whichever is longer.

The importance ratio of a batch that was sampled ahead is relative to the current weights, as for any other
batch. The mismatch weight contains the difference between the two versions: its ratio compares the trainer
with the sampler. For batches that were sampled ahead, this weight has a lower and an upper bound.
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
    """A batch that was sampled ahead. After the last epoch: an empty batch, and ``sampled`` is None."""

    batch: Batch
    sampled: SampledBatch | None


class Prefetch:
    """Samples at most ``depth`` batches in advance, one after another, in a thread.

    On exit from ``with``, waits for the batch that is being sampled, and discards all batches. No batch is
    begun after the exit, nor after an error in ``paused``.
    """

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self._thread = ThreadPoolExecutor(1, "sampling")
        self._begun: deque[Future[Ahead]] = deque()
        self._open = threading.Event()
        self._open.set()
        self._closed = False
        self.failed = False
        """Whether an error ends the run. If so, the sampling of the current batch may stop."""
        self._turn = threading.Lock()
        """Locked while the sampler is used, by the thread that samples ahead or in a ``paused`` block."""

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait until the sampler is idle, and discard the batches."""
        self._closed, self.failed = True, self.failed or error is not None
        self._thread.shutdown(wait=True, cancel_futures=True)

    @property
    def begun(self) -> int:
        """Number of batches in the queue: ``begin`` has added them, and ``take`` has not removed them yet."""
        return len(self._begun)

    @property
    def batch(self) -> Batch | None:
        """The first batch in the queue, or None if the queue is empty. Waits until the batch is sampled.
        Raises the error of its sampling.
        """
        return self._begun[0].result().batch if self._begun else None

    def begin(self, after: Position, sample: Callable[[Position], Ahead]) -> None:
        """Add a batch to the queue. ``sample`` gets the position in the data where the batch begins.

        The position is the end of the last batch in the queue, or ``after`` if the queue is empty. If the
        last batch in the queue failed, the new batch fails with the same error.
        """
        before = self._begun[-1] if self._begun else None

        def work() -> Ahead:
            self._open.wait()
            with self._turn:
                if self._closed:
                    raise CancelledError("the run has ended, so no more batches are sampled ahead")
                return sample(before.result().batch.after if before is not None else after)

        self._begun.append(self._thread.submit(work))

    def wait(self) -> None:
        """Wait until all batches in the queue are sampled. If one failed, ``batch`` raises its error."""
        for future in self._begun:
            future.exception()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Sample nothing ahead in the ``with`` block, which may use the sampler. Waits only for the batch
        that is being sampled.
        """
        self._open.clear()
        try:
            with self._turn:
                try:
                    yield
                except BaseException:
                    self._closed = self.failed = True
                    raise
        finally:
            self._open.set()

    def take(self) -> SampledBatch | None:
        """Remove the first batch from the queue, and return its rollouts. Raises the error of its sampling.

        Return None if the queue is empty, or if the batch is the empty one after the last epoch.
        """
        return self._begun.popleft().result().sampled if self._begun else None
