"""Limits of the ingest, the operator's server for trainers' reports: requests per sender, concurrent token
reviews, and log messages about refused reports.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from rft_operator.ingest.identity import Refused

PER_SECOND = 5.0
BURST = 20.0
MAX_SOURCES = 8192
REVIEWS_AT_ONCE = 8
REVIEWS_WAITING = 256
REVIEW_WAIT_SECONDS = 5.0
"""Longest time in seconds for which a request waits until its token can be reviewed. Then it is refused. The
trainer waits longer than that for a response."""
SAID_AGAIN_SECONDS = 10.0


class SourceLimiter:
    """Limits how many requests per second each source may send, with one token bucket for each source. A
    source is a pod whose token was accepted before, or else an IP address.

    A source may send ``burst`` requests at once. After them, only ``per_second`` requests per second are
    accepted.
    """

    def __init__(
        self, clock: Callable[[], float], per_second: float = PER_SECOND, burst: float = BURST
    ) -> None:
        self._clock = clock
        self._per_second = per_second
        self._burst = burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def check(self, source: str) -> None:
        """Count a request of ``source``, which is the UID of a pod, or an IP address. Raises Refused with the
        HTTP status 429 if the source has sent too many requests.
        """
        now = self._clock()
        level, since = self._buckets.pop(source, (self._burst, now))
        level = min(self._burst, level + (now - since) * self._per_second)
        self._buckets[source] = (level - 1 if level >= 1 else level, now)
        # The sources whose last request is the oldest are dropped. Their buckets are full again by now.
        while len(self._buckets) > MAX_SOURCES:
            self._buckets.popitem(last=False)
        if level < 1:
            raise Refused(429, "too many requests")


class Complaints:
    """Decides which refused requests are logged: equal refusals of one sender only once in ten seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._said: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()

    def count(self, source: str, what: str) -> int | None:
        """Count a refused request, and return whether to log it. ``source`` is the address of the sender, and
        ``what`` is the text of the refusal.

        Return None if the refusal must not be logged. Otherwise return how many equal refusals were left out
        of the log since the last one that was logged.
        """
        key, now = (source, what), self._clock()
        since, left_out = self._said.pop(key, (float("-inf"), 0))
        silent = now - since < SAID_AGAIN_SECONDS
        self._said[key] = (since, left_out + 1) if silent else (now, 0)
        while len(self._said) > MAX_SOURCES:
            self._said.popitem(last=False)
        return None if silent else left_out


class ReviewGate:
    """Limits how many tokens the API server reviews at once for the ingest. Otherwise a sender of forged
    tokens could overload the API server.

    If ``at_once`` reviews are running, up to ``waiting`` requests wait for a few seconds, and are then
    refused. Not thread-safe: all calls must come from one event loop.
    """

    def __init__(self, at_once: int = REVIEWS_AT_ONCE, waiting: int = REVIEWS_WAITING) -> None:
        self._free = asyncio.Semaphore(at_once)
        self._room = waiting

    @asynccontextmanager
    async def enter(self) -> AsyncIterator[None]:
        """Wait until one more token may be reviewed. Until the end of the ``async with`` block, it counts as
        a running review.

        Raises Refused with the HTTP status 429 after ``REVIEW_WAIT_SECONDS``, or at once if too many requests
        wait already.
        """
        if self._room <= 0:
            raise Refused(429, "too many token reviews are under way; send the report again later")
        self._room -= 1
        try:
            async with asyncio.timeout(REVIEW_WAIT_SECONDS):
                await self._free.acquire()
        except TimeoutError as error:
            raise Refused(429, "too many token reviews are under way; send the report again later") from error
        finally:
            self._room += 1
        try:
            yield
        finally:
            self._free.release()
