"""Samples the next batch while the current one is trained on.

A new adapter is published only after the sampler has finished its batch. So a batch is sampled at most one
adapter version before the policy that is trained on it, even where ``maxStaleness`` allows more, and a step
takes as long as the longer of sampling and update.

The update treats such a batch like any other. The policy ratio starts from the current weights. The
difference of one version is part of the mismatch weight (sampler against trainer), which is bounded.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import NamedTuple, Self

from rft_trainer.data.training import Batch
from rft_trainer.rollout.groups import SampledBatch


class Ahead(NamedTuple):
    """A batch whose prompts are chosen and which is being sampled."""

    laid_out: Batch
    sampled: Future[SampledBatch]


class Lookahead:
    """Samples at most one batch ahead, in a thread. A context manager: its exit waits for that batch."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "sampling")
        self._next: Ahead | None = None

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait until the sampler is idle; its batch is discarded."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def begin(self, laid_out: Batch, sample: Callable[[], SampledBatch]) -> None:
        """Start sampling the next batch."""
        self._next = Ahead(laid_out, self._thread.submit(sample))

    def settle(self) -> None:
        """Wait until the sampler is idle. Its error, if any, is raised where the batch's result is read."""
        if self._next is not None:
            self._next.sampled.exception()

    def take(self) -> Ahead | None:
        """Return the batch that was started, and forget it; ``None`` where none was started."""
        taken, self._next = self._next, None
        return taken
