"""Sends an HTTP POST to a grader's server, with limits on the time and on the size of the response. Repeats
the request after temporary failures.
"""

import asyncio
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from rft_graders.tokens import hidden

WAITS_SECONDS = (0.5, 1.0, 2.0)
"""Seconds to wait before the second, third and fourth try of a request."""

MAX_RETRY_AFTER_SECONDS = 60.0
MAX_ANSWER_BYTES = 4 * 1024 * 1024
_QUOTED_CHARACTERS = 200


@dataclass(frozen=True)
class Target:
    """The server of a grader: its URL, the bearer token for requests (None: no token), and the timeout in
    seconds for each try of a request.
    """

    url: str
    token: str | None
    timeout: float

    @property
    def headers(self) -> dict[str, str]:
        """The HTTP headers of each request. They refuse compression, because a small compressed response
        could unpack to a huge one.
        """
        authorization = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return {"Content-Type": "application/json", "Accept-Encoding": "identity", **authorization}


class _Again(ValueError):
    """One try of a request failed, but another try may succeed.

    ``after``: the seconds that the server asks to wait (header Retry-After). 0: it does not ask.
    """

    def __init__(self, message: str, after: float = 0.0) -> None:
        super().__init__(message)
        self.after = after


async def post(client: httpx.AsyncClient, target: Target, body: bytes) -> Any:
    """Send an HTTP POST with the JSON text ``body``, and return the parsed JSON of the response.

    After a timeout, a lost connection, or the status code 429 or 5xx, the request is sent again, at most 3
    times. After other failures it is not sent again. Redirects are not followed, because they could send the
    token to another host.

    Raises ValueError if the last try fails. The message says why.
    """
    for wait in WAITS_SECONDS:
        try:
            return await _once(client, target, body)
        except _Again as error:
            await asyncio.sleep(max(wait, error.after))
    try:
        return await _once(client, target, body)
    except _Again as error:
        raise ValueError(f"{error} (after {len(WAITS_SECONDS) + 1} tries)") from error


async def _once(client: httpx.AsyncClient, target: Target, body: bytes) -> Any:
    place = _place(target.url)
    try:
        async with (
            asyncio.timeout(target.timeout),
            client.stream("POST", target.url, content=body, headers=target.headers) as answer,
        ):
            content = await _read(answer)
    except TimeoutError as error:
        raise _Again(f"{place} did not answer within {target.timeout:g} s") from error
    except httpx.TransportError as error:
        raise _Again(f"{place}: {error or type(error).__name__}") from error
    except httpx.HTTPError as error:
        raise ValueError(f"{place}: {error}") from error
    if answer.is_success:
        return _json(content, place)
    said = hidden(content.decode(errors="replace"), target.token)[:_QUOTED_CHARACTERS].strip()
    problem = f"{place} answered {answer.status_code}" + (f": {said}" if said else "")
    if answer.status_code == httpx.codes.TOO_MANY_REQUESTS or answer.is_server_error:
        raise _Again(problem, _retry_after(answer.headers.get("Retry-After", "")))
    if answer.has_redirect_location:
        problem = (
            f"{place} answered {answer.status_code}: redirects are not followed; set url to the redirect's"
            " target"
        )
    raise ValueError(problem)


async def _read(answer: httpx.Response) -> bytes:
    """Read the body of a response, and return it. Raises ValueError if it exceeds ``MAX_ANSWER_BYTES``."""
    content = bytearray()
    async for part in answer.aiter_bytes():
        content += part
        if len(content) > MAX_ANSWER_BYTES:
            raise ValueError(f"{_place(str(answer.url))} answered with more than {MAX_ANSWER_BYTES} bytes")
    return bytes(content)


def _json(content: bytes, place: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place} answered with something that is not JSON") from error


def _retry_after(value: str) -> float:
    """Return how many seconds a server asks to wait, but at most ``MAX_RETRY_AFTER_SECONDS``.

    ``value``: the header Retry-After, a number of seconds or a date. Return 0 for any other text.
    """
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):  # no date, or one without a time zone
            return 0.0
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS) if seconds == seconds else 0.0


def _place(url: str) -> str:
    """Return only scheme, host and port of a URL, for error messages. Path and query may contain secrets."""
    parsed = httpx.URL(url)
    return f"{parsed.scheme}://{parsed.netloc.decode()}"
