"""A keyed queue with due times: one heap in place of timers, and no key in work twice.

It belongs to one event loop and is not thread-safe.
"""

import asyncio
import heapq
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

Key = tuple[str, str]
"""Namespace and name of an RFTJob."""

FIRST_BACKOFF_SECONDS = 0.5
LAST_BACKOFF_SECONDS = 120.0


@dataclass
class WorkQueue:
    """Hands out each key when it is due, to one worker at a time.

    Adding a key that waits already moves it to the earlier of the two due times. Adding one that is
    in work makes it due again after that work.
    """

    clock: Callable[[], float]
    _due: dict[Key, float] = field(default_factory=dict)
    _heap: list[tuple[float, Key]] = field(default_factory=list)
    _working: set[Key] = field(default_factory=set)
    _failures: dict[Key, int] = field(default_factory=dict)
    _finished: dict[Key, float] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __len__(self) -> int:
        return len(self._due)

    def add(self, key: Key, delay: float = 0.0, apart: float = 0.0) -> None:
        """Make ``key`` due after ``delay`` seconds, and ``apart`` seconds after its last work.

        A negative ``delay`` goes before what has waited for less than that.
        """
        due = max(self.clock() + delay, self._finished.get(key, float("-inf")) + apart)
        if key in self._due and self._due[key] <= due:
            return
        self._due[key] = due
        heapq.heappush(self._heap, (due, key))
        self._changed.set()

    def retry(self, key: Key) -> float:
        """Make ``key`` due after a time that doubles with each failure; return that time."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = min(LAST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** min(failures - 1, 10))
        self.add(key, delay)
        return delay

    def succeeded(self, key: Key) -> None:
        """Forget the failures of ``key``."""
        self._failures.pop(key, None)

    def forget(self, key: Key) -> None:
        """Forget all about a key whose object is gone, except that it may be due."""
        self._failures.pop(key, None)
        self._finished.pop(key, None)

    async def get(self) -> Key:
        """Wait for the next due key and mark it as being in work."""
        while True:
            self._changed.clear()
            wait = self._settle()
            if wait is not None and wait <= 0:
                _, key = heapq.heappop(self._heap)
                del self._due[key]
                self._working.add(key)
                # More may be due: let another worker look as well.
                self._changed.set()
                return key
            # Not wait_for: until Python 3.12 it may lose a cancellation that comes with what it waits for.
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._changed.wait()

    def done(self, key: Key) -> None:
        """Mark the work on ``key`` as finished."""
        self._working.discard(key)
        self._finished[key] = self.clock()
        due = self._due.get(key)
        if due is not None:
            # It came back while it was in work, and get() left it aside.
            heapq.heappush(self._heap, (due, key))
        self._changed.set()

    def _settle(self) -> float | None:
        """Drop outdated and busy heads of the heap; return the seconds until the next is due."""
        while self._heap:
            due, key = self._heap[0]
            if self._due.get(key) != due or (key in self._working and due <= self.clock()):
                heapq.heappop(self._heap)
                continue
            return due - self.clock()
        return None


@dataclass
class Pace:
    """Turns for keys: one every so many seconds, in the order in which they are asked for."""

    clock: Callable[[], float]
    every: float
    _turns: dict[Key, float] = field(default_factory=dict)
    _free: float = float("-inf")

    def wait(self, key: Key) -> float:
        """Return the seconds until the turn of ``key``: the one that it has and is to come, or the next."""
        now = self.clock()
        turn = self._turns.get(key, float("-inf"))
        if turn < now:
            turn = self._turns[key] = max(now, self._free)
            self._free = turn + self.every
        return turn - now

    def forget(self, key: Key) -> None:
        """Forget a key whose object is gone."""
        self._turns.pop(key, None)


async def work(
    queue: WorkQueue,
    process: Callable[[Key], Awaitable[float | None]],
    failed: Callable[[Key, Exception], None],
) -> None:
    """Process keys for ever; run several of these as tasks.

    ``process`` returns the seconds after which to look again, ``None`` for never. A key whose
    processing raised is tried again later.
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
