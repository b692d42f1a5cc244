"""A work queue with delays, like that of client-go. No key is processed twice at the same time.

Only one event loop may use the queue, and it is not thread-safe.
"""

import asyncio
import heapq
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

Key = tuple[str, str]
"""The key of an RFTJob in the queue: its namespace and its name."""

FIRST_BACKOFF_SECONDS = 0.5
LAST_BACKOFF_SECONDS = 120.0


@dataclass
class WorkQueue:
    """A queue of keys, each with the time when it is due. It gives a key to only one worker at a time.

    A queued key that is added again is due at the earlier of the two times. A key that is added while a
    worker processes it is queued again. A worker gets it after the first worker has finished.
    """

    clock: Callable[[], float]
    _due: dict[Key, float] = field(default_factory=dict)
    _heap: list[tuple[float, Key]] = field(default_factory=list)
    _working: set[Key] = field(default_factory=set)
    _failures: dict[Key, int] = field(default_factory=dict)
    _finished: dict[Key, float] = field(default_factory=dict)
    _forgotten: set[Key] = field(default_factory=set)
    """Keys that were forgotten while a worker processes them."""
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __len__(self) -> int:
        return len(self._due)

    def add(self, key: Key, delay: float = 0.0, apart: float = 0.0) -> None:
        """Make ``key`` due in ``delay`` seconds, but at least ``apart`` seconds after it was last processed.

        Keys are processed in the order of the times when they became due. With a negative ``delay``, a key is
        processed before keys that became due more recently.
        """
        due = max(self.clock() + delay, self._finished.get(key, float("-inf")) + apart)
        if key in self._due and self._due[key] <= due:
            return
        self._due[key] = due
        heapq.heappush(self._heap, (due, key))
        self._changed.set()

    def retry(self, key: Key) -> float:
        """Queue ``key`` with exponential back-off, after its reconciliation failed. Return the delay in
        seconds until it is due.
        """
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = min(LAST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** min(failures - 1, 10))
        self.add(key, delay)
        return delay

    def succeeded(self, key: Key) -> None:
        """Reset the back-off of ``key``."""
        self._failures.pop(key, None)

    def forget(self, key: Key) -> None:
        """Drop the back-off and the times of a key whose RFTJob was deleted. A queued key stays queued."""
        self._failures.pop(key, None)
        self._finished.pop(key, None)
        if key in self._working:
            self._forgotten.add(key)

    async def get(self) -> Key:
        """Wait for the next due key and mark it as being processed."""
        while True:
            self._changed.clear()
            wait = self._settle()
            if wait is not None and wait <= 0:
                _, key = heapq.heappop(self._heap)
                del self._due[key]
                self._working.add(key)
                # More keys may be due: wake another worker.
                self._changed.set()
                return key
            # asyncio.wait_for is not used: before Python 3.12 it may ignore a cancellation of this task that
            # arrives at the same time as the result.
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._changed.wait()

    def done(self, key: Key) -> None:
        """Mark ``key`` as no longer being processed."""
        self._working.discard(key)
        if key in self._forgotten:
            self._forgotten.remove(key)
        else:
            self._finished[key] = self.clock()
        due = self._due.get(key)
        if due is not None:
            # The key was queued again while it was processed, and _settle() may have removed its entry from
            # the heap.
            heapq.heappush(self._heap, (due, key))
        self._changed.set()

    def _settle(self) -> float | None:
        """Remove two kinds of entries from the head of the heap: those whose key now has another due time or
        none, and those that are due while a worker still processes their key.

        Return the seconds until the next key is due, or ``None`` if the heap is empty. Zero or less means
        that it is due now.
        """
        while self._heap:
            due, key = self._heap[0]
            if self._due.get(key) != due or (key in self._working and due <= self.clock()):
                heapq.heappop(self._heap)
                continue
            return due - self.clock()
        return None


@dataclass
class Pace:
    """A rate limiter. It gives each key a time slot, in the order of the calls of ``wait``. The slots are
    ``every`` seconds apart.
    """

    clock: Callable[[], float]
    every: float
    _turns: dict[Key, float] = field(default_factory=dict)
    _free: float = float("-inf")

    def wait(self, key: Key) -> float:
        """Return how many seconds ``key`` must wait for its time slot. If it has no slot in the future, it
        gets the next free slot.
        """
        now = self.clock()
        turn = self._turns.get(key, float("-inf"))
        if turn < now:
            turn = self._turns[key] = max(now, self._free)
            self._free = turn + self.every
        return turn - now

    def forget(self, key: Key) -> None:
        """Forget a key whose RFTJob was deleted."""
        self._turns.pop(key, None)


async def work(
    queue: WorkQueue,
    process: Callable[[Key], Awaitable[float | None]],
    failed: Callable[[Key, Exception], None],
) -> None:
    """Process keys of the queue for ever. Several tasks may run this function.

    ``process`` returns the seconds after which to requeue the key, or ``None`` if the key is not requeued. If
    it raises an error, ``failed`` is called with the key and the error, and the key is retried with back-off.
    """
    while True:
        key = await queue.get()
        try:
            again = await process(key)
        except Exception as error:
            failed(key, error)
            queue.retry(key)
        else:
            queue.succeeded(key)
            if again is not None:
                queue.add(key, again)
        finally:
            queue.done(key)
