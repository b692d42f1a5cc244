"""kopf repeats failed lists and watches without end. The API server's answers are recorded for the probes."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import islice
from typing import cast

import aiohttp
import pytest
from aiohttp import web
from kopf._cogs.clients.api import iter_jsonlines

from rft_operator.health import Signs
from rft_operator.watches import Backoff, NotThere, OutOfDate, WatchEvents, middleware

PATH = "/api/v1/pods"
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Recorded(Signs):
    """Keeps what is recorded about watches: the URL path, and "connected" or the reason of a refusal."""

    def __init__(self) -> None:
        super().__init__(300)
        self.told: list[tuple[str, str]] = []

    def connected(self, path: str) -> None:
        self.told.append((path, "connected"))

    def refused(self, path: str, why: str) -> None:
        self.told.append((path, why))


def test_the_delay_grows_to_its_limit_and_the_attempts_never_end() -> None:
    assert list(islice(Backoff(), 7)) == [1, 2, 4, 8, 16, 30, 30]
    assert not hasattr(Backoff(), "__len__"), "the delays never end, so they have no length"


@pytest.mark.parametrize(
    ("query", "status", "told"),
    [
        ("watch=true", 200, "connected"),
        ("limit=1", 200, None),
        ("watch=true", 403, "403 no right"),
        ("limit=1", 503, "503 no right"),
    ],
    ids=["a watch", "a list", "a refused watch", "a refused list"],
)
def test_only_an_accepted_watch_counts_as_connected(query: str, status: int, told: str | None) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"message": "no right"}, status=status)

    assert ask(answer, query) == ([(PATH, told)] if told else [])


@pytest.mark.parametrize(("status", "error"), [(404, NotThere), (410, OutOfDate)])
def test_kopf_repeats_what_it_would_give_up(status: int, error: type[Exception]) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text="no JSON")

    with pytest.raises(error):
        ask(answer, "watch=true")
    assert issubclass(NotThere, aiohttp.ClientConnectionError), "kopf sends the request again"
    assert issubclass(OutOfDate, aiohttp.ClientPayloadError), "kopf begins the list anew"


def test_a_closed_connection_is_an_answer_and_silence_is_none() -> None:
    async def close(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def be_silent(_: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    signs = Recorded()
    with pytest.raises(aiohttp.ClientConnectionError) as caught:
        ask(close, "watch=true", signs)
    # aiohttp itself sends a lost request a second time, so there may be two equal records.
    assert set(signs.told) == {(PATH, type(caught.value).__name__)}
    told = len(signs.told)
    with pytest.raises(TimeoutError):
        ask(be_silent, "watch=true", signs, seconds=0.3)
    assert len(signs.told) == told


def test_watches_that_end_at_once_do_not_follow_each_other_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        slept.append(seconds)
        await sleep(0)

    async def answer(_: web.Request) -> web.Response:
        return web.Response()

    monkeypatch.setattr(asyncio, "sleep", note)
    ask(answer, "watch=true", times=3, clock=lambda: 50.0)
    assert [seconds for seconds in slept if seconds] == [1, 2]


EVENT = b'{"type":"ADDED","object":{"metadata":{"name":"sums"}}}\n'
ENDED = {"type": "ERROR", "object": {"code": 410}}


def error(code: object, message: str = "no leader") -> bytes:
    event = {"type": "ERROR", "object": {"kind": "Status", "code": code, "message": message}}
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"


@pytest.mark.parametrize("size", [1, 7, 10_000], ids=lambda size: f"chunks of {size}")
@pytest.mark.parametrize(
    ("body", "events", "told"),
    [
        (EVENT + EVENT, [json.loads(EVENT)] * 2, []),
        (EVENT + error(500) + EVENT, [json.loads(EVENT), ENDED], ["500 no leader"]),
        (error(500).rstrip(), [ENDED], ["500 no leader"]),
        (error(410), [ENDED], []),
        (error(None), [ENDED], ["None no leader"]),
        (b'{"type": "ERROR", "object": null}\n', [ENDED], ["an error without a code"]),
        (b'{"type":"ERROR","object"\n', [ENDED], ["an error without a code"]),
        (EVENT + EVENT[:-9], [json.loads(EVENT)], []),
        (EVENT.rstrip(), [json.loads(EVENT)], []),
        (b'{"type":"ADDED","object":{"a":"{\\"type\\":\\"ERROR\\""}}\n', None, []),
        (b"", [], []),
    ],
)
def test_an_error_inside_a_watch_makes_kopf_list_again(
    size: int, body: bytes, events: list[object] | None, told: list[str]
) -> None:
    said: list[str] = []

    class Body:
        async def iter_chunked(self, _size: int) -> AsyncIterator[bytes]:
            for at in range(0, len(body), size):
                yield body[at : at + size]

    async def read() -> list[object]:
        content = cast(aiohttp.StreamReader, Body())
        whole = cast(aiohttp.StreamReader, WatchEvents(content, said.append, lambda: None))
        return [json.loads(line) async for line in iter_jsonlines(whole)]

    assert asyncio.run(read()) == (events if events is not None else [json.loads(body)])
    assert said == told


def test_the_delay_after_errors_inside_a_watch_grows_until_an_event_arrives() -> None:
    bodies = [error(500), error(500), error(500), EVENT, error(500)]
    slept: list[float] = []

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=bodies.pop(0))

    async def note(seconds: float) -> None:
        slept.append(seconds)

    signs = Recorded()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rft_operator.watches.asyncio.sleep", note)
        ask(answer, "watch=true", signs, times=5)
    assert [seconds for seconds in slept if seconds] == [1, 2, 4, 5]
    assert [why for _, why in signs.told].count("500 no leader") == 4


def ask(
    answer: Answer,
    query: str,
    signs: Recorded | None = None,
    times: int = 1,
    clock: Callable[[], float] = lambda: 50.0,
    seconds: float = 30.0,
) -> list[tuple[str, str]]:
    """Send ``times`` requests with this query to a server that responds with ``answer``. Return what
    ``signs`` recorded.

    Raises TimeoutError if an answer takes longer than ``seconds``.
    """
    signs = signs or Recorded()
    asyncio.run(_ask(answer, query, signs, times, clock, seconds))
    return signs.told


async def _ask(
    answer: Answer, query: str, signs: Signs, times: int, clock: Callable[[], float], seconds: float
) -> None:
    application = web.Application()
    application.router.add_get(PATH, answer)
    runner = web.AppRunner(application, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}{PATH}?{query}"
    limit = aiohttp.ClientTimeout(total=seconds)
    try:
        async with aiohttp.ClientSession(middlewares=[middleware(signs, clock)], timeout=limit) as session:
            for _ in range(times):
                async with session.get(url) as response:
                    async for _line in iter_jsonlines(response.content):
                        pass
    finally:
        await runner.cleanup()
