"""Samples the next batches while the policy is trained on the current batch.

One thread samples one batch after another. When a step begins, the batches of the next ``maxStaleness`` steps
may be sampled, but not those of later steps. A batch is sampled by the adapter that is the newest when the
sampling of this batch begins. So this adapter is at most ``maxStaleness`` versions older than the policy that
is trained on the batch.

With one batch ahead, a step takes as long as its sampling or its update, whichever is longer. With more
batches ahead, this is true only on average: a step takes as long as the average sampling or the average
update, whichever is longer.

The importance ratio of a batch that was sampled ahead is relative to the current weights, as for any other
batch. The mismatch weight contains the difference between the two versions, because its ratio compares the
trainer with the sampler. For batches that were sampled ahead, this weight has a lower and an upper bound.
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
    """A batch that was sampled ahead. After the last epoch the batch is empty, and ``sampled`` is None."""

    batch: Batch
    sampled: SampledBatch | None


class Prefetch:
    """Samples at most ``depth`` batches ahead, one after another, in a thread.

    On exit from ``with``, it waits for the batch that is being sampled, and discards all batches. After the
    exit no batch is begun. After an error in a ``paused`` block no batch is begun either.
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
        """The first batch in the queue. None: the queue is empty.

        Waits until the first batch is sampled. Raises the error of its sampling.
        """
        return self._begun[0].result().batch if self._begun else None

    def begin(self, after: Position, sample: Callable[[Position], Ahead]) -> None:
        """Add a batch to the queue. ``sample`` gets the position in the data where the batch begins.

        If the queue is empty, the batch begins at ``after``, else at the end of the last batch in the queue.
        If the last batch in the queue failed, the new batch fails with the same error.
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
        """In the ``with`` block nothing is sampled ahead, so the block may use the sampler.

        Before the block, waits only for the batch that is being sampled.
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

        Return None if the queue is empty. Also return None for a batch without prompts, which follows the
        last epoch.
        """
        return self._begun.popleft().result().sampled if self._begun else None
