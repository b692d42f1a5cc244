"""The next batch, sampled while the last one is trained on.

The sampler works for one side at a time: its batch is waited for before a new adapter is published to it. So
a batch is at most one adapter version behind the policy that is trained on it, whatever more
``maxStaleness`` would allow, and a step takes as long as the longer of its two halves.

What the update makes of such a batch is what it makes of any other: the policy ratio is that of the current
weights, and the weight for the sampler's mismatch, which then holds the version between them too, is bounded.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import NamedTuple, Self

from rft_trainer.data.training import Batch
from rft_trainer.sampling import SampledBatch


class Ahead(NamedTuple):
    """A batch that is laid out and being sampled."""

    laid_out: Batch
    sampled: Future[SampledBatch]


class Lookahead:
    """At most one batch ahead. A context manager: leaving it waits for what is still being sampled."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "sampling")
        self._next: Ahead | None = None

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the sampler; nobody wants the batch any more."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def begin(self, laid_out: Batch, sample: Callable[[], SampledBatch]) -> None:
        """Begin to sample the batch that comes next."""
        self._next = Ahead(laid_out, self._thread.submit(sample))

    def settle(self) -> None:
        """Wait until the sampler is idle. What went wrong is told to who takes the batch."""
        if self._next is not None:
            self._next.sampled.exception()

    def take(self) -> Ahead | None:
        """Return the batch that was begun, once; ``None`` where none was."""
        taken, self._next = self._next, None
        return taken
