"""Samples the next batches while the current one is trained on.

One thread samples batch after batch, as many ahead as ``maxStaleness`` allows. When a step begins, with the
policy after ``n`` steps, the batches of the next ``maxStaleness`` steps may be begun. Each is sampled by the
newest adapter that is saved when its sampling begins. So it is at most ``maxStaleness`` versions behind the
policy that is trained on it.

With one batch ahead, a step takes the time of its sampling or of its update, whichever is longer. With more
batches ahead, only the averages over several steps count: the average time of sampling or that of the update,
whichever is longer.

The policy ratio of such a batch is relative to the current weights, as in any other batch. The mismatch
weight (trainer against sampler) contains the difference between the versions. For such batches this weight
has a lower and an upper bound.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rft_run.state import Position
from rft_trainer.data.training import Batch
from rft_trainer.rollout.groups import SampledBatch


@dataclass(frozen=True)
class Ahead:
    """A batch that was sampled ahead. ``sampled`` is None after the last epoch, where the batch is empty."""

    batch: Batch
    sampled: SampledBatch | None


class Prefetch:
    """Samples at most ``depth`` batches in advance, one after another, in a thread.

    On exit from ``with``, waits for the batch that is being sampled, and discards all batches.
    """

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self._thread = ThreadPoolExecutor(1, "sampling")
        self._begun: deque[Future[Ahead]] = deque()
        self._open = threading.Event()
        self._open.set()
        self._turn = threading.Lock()
        """Held by whoever uses the sampler: the thread, or the caller of ``paused``."""

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait until the sampler is idle, and discard the batches."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    @property
    def begun(self) -> int:
        """Number of batches that were begun, or are in line, and were not taken."""
        return len(self._begun)

    @property
    def batch(self) -> Batch | None:
        """The next batch, or None if none was begun. Waits until it is sampled. Raises sampling's error."""
        return self._begun[0].result().batch if self._begun else None

    def begin(self, after: Position, sample: Callable[[Position], Ahead]) -> None:
        """Put a batch in line. ``sample`` gets the position in the data where the batch begins.

        This is the end of the batch before it in line, or ``after`` if there is none. If that batch failed,
        this one fails with the same error.
        """
        before = self._begun[-1] if self._begun else None

        def work() -> Ahead:
            self._open.wait()
            with self._turn:
                return sample(before.result().batch.after if before is not None else after)

        self._begun.append(self._thread.submit(work))

    def wait(self) -> None:
        """Wait until all batches in line are sampled. If one failed, ``batch`` raises its error."""
        for future in self._begun:
            future.exception()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Keep the sampler free in a ``with`` block. Waits only for the batch that is being sampled."""
        self._open.clear()
        try:
            with self._turn:
                yield
        finally:
            self._open.set()

    def take(self) -> SampledBatch | None:
        """Return the next sampled batch, or None if none was begun. Raises the sampler's error.

        A second call for the same batch returns None.
        """
        return self._begun.popleft().result().sampled if self._begun else None
