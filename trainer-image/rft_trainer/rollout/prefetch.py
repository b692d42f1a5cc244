"""Samples the next batch while the current one is trained on.

A new adapter is published only after the sampler has finished its batch. So the policy that sampled a batch
is at most one adapter version older than the policy that is trained on it, even if ``maxStaleness`` allows
more. A step takes the time of sampling or of the update, whichever is longer.

The policy ratio of such a batch is relative to the current weights, as in any other batch. The difference of
one version is part of the mismatch weight (trainer against sampler). For such batches this weight has a lower
and an upper bound.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from rft_trainer.data.training import Batch
from rft_trainer.rollout.groups import SampledBatch


class Prefetch:
    """Samples at most one batch in advance, in a thread. The end of ``with`` waits for this batch."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "sampling")
        self._sampled: Future[SampledBatch] | None = None
        self.batch: Batch | None = None
        """The batch that is sampled in advance, or None."""

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait until the sampler is idle, and discard the batch."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def begin(self, batch: Batch, sample: Callable[[], SampledBatch]) -> None:
        """Start sampling a batch."""
        self.batch, self._sampled = batch, self._thread.submit(sample)

    def wait(self) -> None:
        """Wait until the sampler is idle. If sampling failed, the next call of ``take`` raises the error."""
        if self._sampled is not None:
            self._sampled.exception()

    def take(self) -> SampledBatch | None:
        """Return the sampled batch, or None if none was begun. Raises the sampler's error.

        A second call for the same batch returns None.
        """
        sampled, self.batch, self._sampled = self._sampled, None, None
        return sampled.result() if sampled is not None else None
