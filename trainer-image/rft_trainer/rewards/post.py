"""One POST to a service that scores: tried again where that helps, within limits of time and size."""

import asyncio
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from rft_trainer.rewards.tokens import hidden

WAITS_SECONDS = (0.5, 1.0, 2.0)
"""Before the second, third and fourth try."""

MAX_RETRY_AFTER_SECONDS = 60.0
MAX_ANSWER_BYTES = 4 * 1024 * 1024
_QUOTED_CHARACTERS = 200


@dataclass(frozen=True)
class Target:
    """Where requests go. ``timeout`` bounds one try from its first to its last byte, in seconds."""

    url: str
    token: str | None
    timeout: float

    @property
    def headers(self) -> dict[str, str]:
        """Headers of a request; an answer that is packed could be larger than it looks."""
        authorization = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return {"Content-Type": "application/json", "Accept-Encoding": "identity", **authorization}


class _Again(ValueError):
    """A try failed that another may not; ``after`` is what the service asked to wait, in seconds."""

    def __init__(self, message: str, after: float = 0.0) -> None:
        super().__init__(message)
        self.after = after


async def post(client: httpx.AsyncClient, target: Target, body: bytes) -> Any:
    """Return the JSON that is answered.

    No answer in time, 429 and 5xx are tried again, everything else is not. Redirects are not followed: the
    token would go where nobody sent it. Raises ValueError with what the last try met.
    """
    for wait in WAITS_SECONDS:
        try:
            return await _once(client, target, body)
        except _Again as error:
            await asyncio.sleep(max(wait, error.after))
    try:
        return await _once(client, target, body)
    except _Again as error:
        raise ValueError(f"{error} ({len(WAITS_SECONDS) + 1} tries)") from error


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
            f"{place} answered {answer.status_code}: redirects are not followed, set url to the last address"
        )
    raise ValueError(problem)


async def _read(answer: httpx.Response) -> bytes:
    """Return the body. Raises ValueError for one that is too large."""
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
    """Return the seconds that a Retry-After header asks for, a number or a date; 0 for none."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):  # no date, or one without a time zone
            return 0.0
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS) if seconds == seconds else 0.0


def _place(url: str) -> str:
    """Return scheme, host and port: the rest of an address may hold secrets."""
    parsed = httpx.URL(url)
    return f"{parsed.scheme}://{parsed.netloc.decode()}"
