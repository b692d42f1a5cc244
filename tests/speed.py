"""Limits of processor time that also hold on a slow or a busy machine."""

import time
from collections.abc import Callable

REFERENCE_SECONDS = 0.07
"""CPU time of the loop below on one idle core of an AMD EPYC of 2023."""


def slowness() -> float:
    """Return how much slower the processor is now than the reference, at least 1.

    Two busy threads of one core take each other's time, and a virtual machine shares its cores with others.
    """

    def loop() -> None:
        total = 0
        for number in range(1_000_000):
            total += number * number

    return max(1.0, *(_seconds(loop) / REFERENCE_SECONDS for _ in range(3)))


def assert_linear(run: Callable[[int], object], size: int) -> None:
    """Assert that ``run`` takes linear time: for ten times ``size`` at most forty times as long as for
    ``size``. Quadratic time would take a hundred times as long.
    """
    small = min(_seconds(lambda: run(size)) for _ in range(3))
    large = min(_seconds(lambda: run(10 * size)) for _ in range(2))
    assert large < 40 * small, f"{large:.3f} s for {10 * size}, {small:.4f} s for {size}"


def _seconds(run: Callable[[], object]) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started
