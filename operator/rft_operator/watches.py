"""kopf's requests: each that the API server refuses is sent again, with a growing delay and without end.

By itself kopf gives up after ten attempts, or after one if the answer is 404. Then all watches end, although
only one of them was refused: because a namespace or its RoleBinding was deleted, or the CRD, or because the
API server is overloaded.
"""

import asyncio
import time
from collections.abc import Callable, Iterator

import aiohttp

from rft_operator.health import Signs
from rft_run.cluster_text import cluster_text

FIRST_SECONDS, LAST_SECONDS = 1.0, 30.0
"""The delays in seconds before the first and before every late attempt to repeat a request. The delays
between them double."""
PACE_SECONDS = 1.0
"""Shortest time in seconds between two requests for one watch. Without it, kopf connects again at once when
the API server accepts a watch and then closes it."""
MAX_REASON = 300


class Backoff:
    """The delays in seconds before attempts to repeat a request, without end.

    It has no length, and therefore kopf never gives up.
    """

    def __iter__(self) -> Iterator[float]:
        seconds = FIRST_SECONDS
        while True:
            yield seconds
            seconds = min(2 * seconds, LAST_SECONDS)


class NotThere(aiohttp.ClientConnectionError):
    """The answer was 404. kopf repeats a request after a connection error, but not after this answer."""


class OutOfDate(aiohttp.ClientPayloadError):
    """The answer was 410: the list took too long. After an error of this type kopf begins the list anew."""


def middleware(signs: Signs, clock: Callable[[], float] = time.monotonic) -> aiohttp.ClientMiddlewareType:
    """Return a middleware for kopf's session. It records in ``signs`` how each watch is answered."""
    free: dict[str, float] = {}

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
            raise  # silence is no answer: the liveness probe fails if it lasts
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
        return response

    return send


async def _said(response: aiohttp.ClientResponse) -> str:
    """Return the status of a refusal, and its reason if it has one. The body can still be read afterwards."""
    try:
        body = await response.json(content_type=None)
        reason = str(body["message"])
    except (ValueError, KeyError, TypeError, aiohttp.ClientError):
        reason = str(response.reason or "")
    return f"{response.status} {cluster_text(reason, MAX_REASON)}"
