"""The listener of ingest and webhook, tested with clients that send too little or open many connections."""

import asyncio
import http.client
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler

import pytest
from aiohttp import web

from rft_operator import threads, tls
from rft_operator.listener import BoundedListener, Connection, Limits, displaced
from tests.ports import free_port
from tests.waiting import wait_until

IDENTITY = tls.renewed(None, ("127.0.0.1",), datetime.now(UTC))
TRUSTING = ssl.create_default_context(cadata=IDENTITY.ca_bundle)
GET = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
QUICK = Limits(connections=8, per_address=4, handshake=0.15, headers=0.15, idle=0.15)


@asynccontextmanager
async def listening(
    limits: Limits, *, slow: asyncio.Event | None = None
) -> AsyncIterator[tuple[BoundedListener, int]]:
    """Yield a TLS listener and its port. If ``slow`` is given, each response waits until this event
    is set.
    """

    async def answer(_: web.Request) -> web.Response:
        if slow is not None:
            await slow.wait()
        return web.Response(text="ok")

    application = web.Application()
    application.router.add_get("/", answer)
    listener = BoundedListener(application, limits)
    port = free_port()
    await listener.start("127.0.0.1", port, tls.server_context(IDENTITY))
    try:
        yield listener, port
    finally:
        await listener.close()


class Client:
    """A client's connection to the listener. Its address may be any loopback address of this machine."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, port: int, source: str = "127.0.0.1", *, tls_too: bool = True) -> "Client":
        return cls(
            *await asyncio.open_connection(
                "127.0.0.1",
                port,
                local_addr=(source, 0),
                ssl=TRUSTING if tls_too else None,
                server_hostname="127.0.0.1" if tls_too else None,
            )
        )

    async def get(self) -> bytes:
        """Send a request. Return the first line of the response."""
        self.writer.write(GET)
        return await self.reader.readline()

    async def is_ended(self) -> bool:
        """Return whether the server ends the connection within two seconds."""
        try:
            async with asyncio.timeout(2):
                return await self.reader.read() == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False
        finally:
            self.writer.transport.abort()


def run(test: Coroutine[None, None, None]) -> None:
    asyncio.run(test)


def test_a_connection_that_begins_no_handshake_is_closed_in_time() -> None:
    async def test() -> None:
        async with listening(QUICK) as (listener, port):
            silent = await Client.connect(port, tls_too=False)
            assert await silent.is_ended()
            assert listener.connections == 0

    run(test())


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: here\r\n"])
def test_a_connection_without_a_whole_request_is_closed_in_time(sent: bytes) -> None:
    async def test() -> None:
        async with listening(QUICK) as (listener, port):
            client = await Client.connect(port)
            client.writer.write(sent)
            assert await client.is_ended()
            assert listener.connections == 0

    run(test())


def test_bytes_that_drip_do_not_extend_the_deadline_of_a_request() -> None:
    async def test() -> None:
        async with listening(QUICK) as (listener, port):
            client = await Client.connect(port)

            async def drip() -> None:
                client.writer.write(b"GET / HTTP/1.1\r\n")
                while listener.connections:
                    client.writer.write(b"A: b\r\n")
                    await asyncio.sleep(0.02)

            async with asyncio.timeout(2):
                await drip()

    run(test())


def test_the_second_request_of_a_connection_has_a_deadline_too() -> None:
    async def test() -> None:
        async with listening(Limits(headers=0.15, idle=60)) as (_, port):
            client = await Client.connect(port)
            assert await client.get() == b"HTTP/1.1 200 OK\r\n"
            await client.reader.readuntil(b"\r\n\r\n")
            await client.reader.readexactly(2)
            client.writer.write(b"GET / HT")
            assert await client.is_ended()

    run(test())


def test_an_answered_connection_may_wait_for_its_next_request() -> None:
    async def test() -> None:
        async with listening(Limits(headers=0.1, idle=60)) as (_, port):
            client = await Client.connect(port)
            for _ in range(2):
                assert await client.get() == b"HTTP/1.1 200 OK\r\n"
                await client.reader.readuntil(b"\r\n\r\n")
                await client.reader.readexactly(2)
                await asyncio.sleep(0.2)
            client.writer.close()

    run(test())


def test_a_request_that_is_being_answered_has_no_deadline_and_keeps_its_place() -> None:
    async def test() -> None:
        slow = asyncio.Event()
        async with listening(Limits(connections=2, headers=0.1), slow=slow) as (listener, port):
            first = await Client.connect(port, "127.0.0.2")
            answer = asyncio.create_task(first.get())
            await asyncio.sleep(0.2)
            crowd = [await Client.connect(port, tls_too=False) for _ in range(10)]
            await asyncio.sleep(0.05)
            assert listener.connections == 2
            slow.set()
            assert await answer == b"HTTP/1.1 200 OK\r\n"
            for each in (first, *crowd):
                each.writer.transport.abort()

    run(test())


@pytest.mark.parametrize("handshakes", [False, True])
@pytest.mark.parametrize("addresses", [1, 40])
def test_a_client_is_answered_while_silent_connections_take_every_place(
    addresses: int, handshakes: bool
) -> None:
    async def test() -> None:
        limits = Limits(connections=8, per_address=4, handshake=60, headers=60)
        async with listening(limits) as (listener, port):
            sources = [f"127.0.1.{1 + number % addresses}" for number in range(40)]
            crowd = [await Client.connect(port, source, tls_too=False) for source in sources]
            if handshakes:
                crowd += [await Client.connect(port, source) for source in sources[:12]]
            assert listener.connections <= 8
            client = await Client.connect(port, "127.0.0.9")
            assert await client.get() == b"HTTP/1.1 200 OK\r\n"
            assert listener.connections <= 8
            for each in (client, *crowd):
                each.writer.transport.abort()

    run(test())


def test_the_log_tells_how_many_connections_were_closed_and_why(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rft_operator.listener.SAID_AGAIN_SECONDS", 0.3)

    async def test() -> None:
        async with listening(QUICK) as (_, port):
            crowd = [await Client.connect(port, tls_too=False) for _ in range(3)]
            crowd[0].writer.write(GET)
            for each in crowd:
                assert await each.is_ended()
            probe = await Client.connect(port, tls_too=False)
            probe.writer.close()
            await asyncio.sleep(0.4)

    run(test())
    assert sorted(caplog.messages) == [
        "1 connections were closed: the TLS handshake failed",
        "2 connections were closed: no TLS handshake within 0.15 s",
    ]


def test_a_listener_that_was_never_started_closes() -> None:
    asyncio.run(BoundedListener(web.Application()).close())


def held(listener: BoundedListener, *peers: str, answering: tuple[int, ...] = ()) -> list[Connection]:
    made = [Connection(peer, listener) for peer in peers]
    for number in answering:
        made[number].begin_request()
    return made


def test_the_address_with_most_waiting_connections_gives_up_its_oldest() -> None:
    limits = Limits(connections=5, per_address=4)
    listener = BoundedListener(web.Application(), limits)
    crowd = held(listener, "a", "b", "b", "a", "b")
    assert displaced(crowd, "c", limits) is crowd[1]
    crowd = held(listener, "a", "b", "b", "a", "b", answering=(1, 2))
    assert displaced(crowd, "c", limits) is crowd[0]
    crowd = held(listener, "a", "b", "b", "b", "b")
    assert displaced(crowd, "b", limits) is crowd[1]
    crowd = held(listener, "a", "b", "b", "b", "b", answering=(1, 2, 3, 4))
    assert displaced(crowd, "b", limits) is None


@contextmanager
def probes() -> Iterator[int]:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = threads.serve(Answer, 0, "probes-of-a-test")
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def test_a_probe_is_answered_while_many_connections_say_nothing_and_their_threads_end() -> None:
    with probes() as port:
        crowd = [socket.create_connection(("127.0.0.1", port)) for _ in range(3 * threads.CONNECTIONS)]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
        connection.close()

        def handling() -> int:
            return sum("process_request_thread" in each.name for each in threading.enumerate())

        wait_until("few threads", lambda: handling() <= threads.CONNECTIONS, 5)
        for each in crowd:
            each.close()
