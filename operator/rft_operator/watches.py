"""Makes kopf repeat every list and watch that the API server refuses, with growing delays, until it succeeds.

kopf itself would give up after ten attempts, or after one attempt if the answer is 404. Then all watches
would end, even if only one of them was refused. The API server may refuse a watch because it is overloaded,
or because somebody has deleted the CRD, the namespace or the RoleBinding.
"""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, cast

import aiohttp

from rft_operator.health import Signs
from rft_run.cluster_text import cluster_text

FIRST_SECONDS, LAST_SECONDS = 1.0, 30.0
"""The first and the longest delay in seconds before a request is repeated. Each delay is twice the one
before, up to the longest."""
PACE_SECONDS = 1.0
"""Shortest time in seconds between two requests for one watch. Without it, kopf would connect again at once
if the API server accepts a watch and then closes it."""
MAX_REASON = 300
_ERROR_EVENT = re.compile(rb'^\{\s*"type"\s*:\s*"ERROR"', re.MULTILINE)


class Backoff:
    """The delays in seconds before a request is repeated, as a sequence without end. kopf gives up when the
    sequence of delays ends, so with this one it never gives up.
    """

    def __iter__(self) -> Iterator[float]:
        seconds = FIRST_SECONDS
        while True:
            yield seconds
            seconds = min(2 * seconds, LAST_SECONDS)


class NotThere(aiohttp.ClientConnectionError):
    """The API server answered 404. It is raised as a connection error, because kopf repeats a request after
    such an error, but not after a 404.
    """


class OutOfDate(aiohttp.ClientPayloadError):
    """The API server answered 410, for example because kopf took too long to read a list in pages. After an
    error of this type, kopf reads the list again from its first page.
    """


class WatchEvents:
    """The body of a watch's answer, without the events that would end kopf.

    The API server reports an error in the middle of a watch as an event of the type ERROR. If the code of the
    error is 410, kopf lists the objects again. For any other code, such as 500 while etcd elects a leader,
    kopf would end. So each such event gets the code 410. An event that is incomplete, because the connection
    was cut, is dropped.
    """

    def __init__(
        self, content: aiohttp.StreamReader, failed: Callable[[str], None], got_event: Callable[[], object]
    ) -> None:
        """Wrap ``content``, the body of the answer.

        - ``failed``: called with the message of an ERROR event whose code is not 410, before the watch ends.
        - ``got_event``: called when other events arrive.
        """
        self._content = content
        self._failed = failed
        self._got_event = got_event

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        """Yield the body in parts that end with a whole line. Each line is one event as JSON.

        ``size`` is the largest number of bytes that are read at once. After an ERROR event, nothing more is
        yielded.
        """
        rest = b""
        async for chunk in self._content.iter_chunked(size):
            whole, end, rest = (rest + chunk).rpartition(b"\n")
            if (error := _ERROR_EVENT.search(whole)) is None:
                if whole:
                    self._got_event()
                yield whole + end
                continue
            yield whole[: error.start()]
            line, _, _ = whole[error.start() :].partition(b"\n")
            yield self._error(line)
            return
        if _is_json(rest):
            yield self._error(rest) if _ERROR_EVENT.match(rest) else rest

    def _error(self, line: bytes) -> bytes:
        status: Any = json.loads(line).get("object") if _is_json(line) else None
        found = status if isinstance(status, dict) else {}
        if found.get("code") != 410:
            said = cluster_text(str(found.get("message") or found.get("reason") or ""), MAX_REASON)
            self._failed(f"{found.get('code', 'an error without a code')} {said}".strip())
        return b'{"type":"ERROR","object":{"code":410}}\n'


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def middleware(signs: Signs, clock: Callable[[], float] = time.monotonic) -> aiohttp.ClientMiddlewareType:
    """Return a middleware for kopf's HTTP session. It changes kopf's requests and their answers as follows:

    - It records in ``signs`` how the API server answers each list and watch.
    - It starts requests for the same watch at least ``PACE_SECONDS`` apart.
    - For the answers 404 and 410 it raises NotThere and OutOfDate, after which kopf tries again.
    - It replaces an error inside a watch's answer by one after which kopf lists the objects again. The next
      watch then waits for the next delay of ``Backoff``, which starts again once an event arrives.
    """
    free: dict[str, float] = {}
    delays: dict[str, Iterator[float]] = {}

    async def send(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        path, is_watch = request.url.path, request.url.query.get("watch") == "true"
        if is_watch:
            now = clock()
            begin = max(now, free.get(path, now))
            free[path] = begin + PACE_SECONDS
            await asyncio.sleep(begin - now)
        try:
            response = await handler(request)
        except TimeoutError:
            raise  # a missing answer is not a refusal; if it lasts, the liveness probe fails
        except aiohttp.ClientConnectionError as error:
            signs.refused(path, type(error).__name__)
            raise
        if response.status >= 400:
            why = await _said(response)
            signs.refused(path, why)
            if response.status == 404:
                response.release()
                raise NotThere(why)
            if response.status == 410:
                response.release()
                raise OutOfDate(why)
        elif is_watch:
            signs.connected(path)

            def failed(why: str) -> None:
                free[path] = clock() + next(delays.setdefault(path, iter(Backoff())))
                signs.refused(path, why)

            events = WatchEvents(response.content, failed, lambda: delays.pop(path, None))
            response.content = cast(aiohttp.StreamReader, events)
        return response

    return send


async def _said(response: aiohttp.ClientResponse) -> str:
    """Return the HTTP status of a refusal, with the message in its body. After this call, the body can still
    be read.
    """
    try:
        body = await response.json(content_type=None)
        reason = str(body["message"])
    except (ValueError, KeyError, TypeError, aiohttp.ClientError):
        reason = str(response.reason or "")
    return f"{response.status} {cluster_text(reason, MAX_REASON)}"
