"""The work queue: when a key is due, and how long a key waits after an error.

Only one worker at a time processes a key.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from rft_operator.queue import FIRST_BACKOFF_SECONDS, LAST_BACKOFF_SECONDS, Key, Pace, WorkQueue, work

A: Key = ("team", "a")
B: Key = ("team", "b")
C: Key = ("team", "c")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, 2))


def ready(queue: WorkQueue) -> Coroutine[Any, Any, Key]:
    return asyncio.wait_for(queue.get(), 0.05)


async def nothing(queue: WorkQueue) -> bool:
    try:
        await ready(queue)
    except TimeoutError:
        return True
    return False


def test_a_key_that_is_added_twice_is_processed_once() -> None:
    async def main() -> None:
        queue = WorkQueue(Clock())
        queue.add(A)
        queue.add(A)
        queue.add(B)
        assert {await ready(queue), await ready(queue)} == {A, B}
        assert await nothing(queue)

    run(main())


def test_a_key_is_not_handed_out_while_it_is_processed() -> None:
    async def main() -> None:
        queue = WorkQueue(Clock())
        queue.add(A)
        assert await ready(queue) == A
        queue.add(A)
        assert await nothing(queue)
        queue.done(A)
        assert await ready(queue) == A

    run(main())


def test_a_queued_key_moves_to_the_earlier_due_time() -> None:
    async def main() -> None:
        clock = Clock()
        queue = WorkQueue(clock)
        queue.add(A, delay=100)
        queue.add(A, delay=10)
        queue.add(A, delay=50)
        clock.now = 11
        assert await ready(queue) == A
        queue.done(A)
        clock.now = 200
        assert await nothing(queue)

    run(main())


def test_a_negative_delay_puts_a_key_before_keys_that_waited_less() -> None:
    async def main() -> None:
        clock = Clock()
        queue = WorkQueue(clock)
        queue.add(A)
        clock.now = 100.0
        queue.add(B)
        queue.add(C, delay=-30.0)
        assert [await ready(queue) for _ in range(3)] == [A, C, B]

    run(main())


def test_rounds_for_reports_of_a_job_have_a_minimum_distance() -> None:
    async def main() -> None:
        clock = Clock()
        queue = WorkQueue(clock)
        queue.add(A, apart=2)
        assert await ready(queue) == A, "the first reconciliation is not delayed"
        queue.done(A)
        for _ in range(5):
            queue.add(A, apart=2)
        assert await nothing(queue)
        clock.now = 2.1
        assert await ready(queue) == A
        queue.done(A)
        assert await nothing(queue)

    run(main())


def test_time_slots_follow_each_other_and_each_key_has_only_one() -> None:
    clock = Clock()
    pace = Pace(clock, 0.5)
    assert [pace.wait(key) for key in (A, B, A, C, B)] == [0.0, 0.5, 0.0, 1.0, 0.5]
    clock.now = 0.25
    assert [pace.wait(key) for key in (A, B)] == [1.25, 0.25]
    clock.now = 10.0
    assert pace.wait(B) == 0.0, "unused time slots are not saved for later"
    pace.forget(B)
    assert pace.wait(B) == 0.5


def test_failures_back_off_and_success_resets_the_back_off() -> None:
    queue = WorkQueue(Clock())
    delays = [queue.retry(A) for _ in range(12)]
    assert delays[:3] == [FIRST_BACKOFF_SECONDS, 2 * FIRST_BACKOFF_SECONDS, 4 * FIRST_BACKOFF_SECONDS]
    assert delays[-1] == LAST_BACKOFF_SECONDS
    queue.succeeded(A)
    assert queue.retry(A) == FIRST_BACKOFF_SECONDS


def test_workers_share_the_keys_and_continue_after_errors() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        queue = WorkQueue(loop.time)
        seen: list[Key] = []
        errors: list[str] = []
        finished = asyncio.Event()

        async def process(key: Key) -> float | None:
            seen.append(key)
            if len(seen) == 1:
                raise RuntimeError("once")
            if seen.count(A) >= 2 and B in seen:
                finished.set()
            return None

        tasks = [
            asyncio.create_task(work(queue, process, lambda key, error: errors.append(str(error))))
            for _ in range(3)
        ]
        queue.add(A)
        await asyncio.sleep(0)
        queue.add(B)
        await finished.wait()
        assert errors == ["once"]
        for task in tasks:
            task.cancel()

    run(main())


def test_a_key_is_requeued_after_the_returned_delay() -> None:
    async def main() -> None:
        queue = WorkQueue(asyncio.get_running_loop().time)
        times: list[Key] = []
        finished = asyncio.Event()

        async def process(key: Key) -> float | None:
            times.append(key)
            if len(times) == 3:
                finished.set()
                return None
            return 0.01

        task = asyncio.create_task(work(queue, process, lambda key, error: None))
        queue.add(A)
        await finished.wait()
        task.cancel()

    run(main())


@pytest.mark.parametrize("turns", range(5))
@pytest.mark.parametrize("delay", [0.0, 60.0])
def test_a_worker_that_is_cancelled_while_a_key_arrives_ends(delay: float, turns: int) -> None:
    """The operator waits for its workers before it stops. A worker that never ends would block it."""

    async def main() -> None:
        queue = WorkQueue(Clock())
        queue.add(B, 100.0)

        async def process(key: Key) -> float | None:
            return None

        worker = asyncio.create_task(work(queue, process, lambda key, error: None))
        await asyncio.sleep(0.01)  # the worker waits now
        queue.add(A, delay)
        for _ in range(turns):
            await asyncio.sleep(0)
        worker.cancel()
        done, _ = await asyncio.wait([worker], timeout=0.5)
        assert done, "the worker must end when it is cancelled"

    run(main())


def test_a_key_that_is_forgotten_while_it_is_processed_leaves_nothing() -> None:
    async def main() -> None:
        clock = Clock()
        queue = WorkQueue(clock)
        queue.add(A)
        assert await ready(queue) == A
        queue.forget(A)
        queue.done(A)
        queue.add(A, apart=60.0)
        assert await ready(queue) == A, "a new RFTJob of this name waits for nothing"
        queue.done(A)
        queue.add(A, apart=60.0)
        assert await nothing(queue)

    run(main())
