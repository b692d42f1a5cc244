"""After an error, a run that prefetches batches begins no further batch."""

import time

import pytest

from rft_run.state import Position
from rft_trainer.data.training import Batch
from rft_trainer.rollout.prefetch import Ahead, Prefetch, SamplingState


def test_no_batch_is_begun_after_an_error_while_the_sampler_is_kept_free() -> None:
    begun: list[Position] = []

    def sample(position: Position, _state: SamplingState) -> Ahead:
        begun.append(position)
        return Ahead(Batch([], position, 0), None)

    prefetch = Prefetch(1)
    with pytest.raises(OSError, match="gone"), prefetch, prefetch.paused():  # noqa: PT012
        prefetch.begin(Position(), sample)
        while not prefetch._begun[0][0].running():
            time.sleep(0.001)
        raise OSError("gone")
    assert begun == []
    assert prefetch.failed
