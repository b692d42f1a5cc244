"""A listener for the ingest and the webhook. Clients that are silent or slow cannot block it.

A TLS connection takes about 300 KiB as soon as it is accepted, and anyone in the cluster can open one. So the
number of connections is limited, and so is the time for each step of a connection. When the limit is reached,
the listener closes an old connection for each new one. But it closes none whose request is being answered.
"""

import asyncio
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import cast

from aiohttp import web
from aiohttp.typedefs import Handler

from rft_operator.listening import listening, peer_of

BACKLOG = 1024
"""Largest number of connections that wait in the kernel until the listener accepts them."""
SAID_AGAIN_SECONDS = 10.0
"""Shortest time in seconds between two log messages about the number of closed connections."""
ACCEPT_RETRY_SECONDS = 0.1
"""Seconds to wait if a connection cannot be accepted, for example if no file descriptor is free."""
CLOSE_SECONDS = 2.0
"""Longest time in seconds for which ``close`` waits for requests that are being answered."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """The limits of one listener. Times are in seconds."""

    connections: int = 256
    """Largest number of open connections. With TLS that many connections take about 80 MiB of memory."""
    per_address: int = 64
    """Largest number of open connections of one address. Pods behind one gateway share an address."""
    handshake: float = 5.0
    """Longest time in seconds from the accepted connection to the end of the TLS handshake."""
    headers: float = 10.0
    """Longest time in seconds until the headers of a request have arrived. For the first request of a
    connection, the time starts at the end of the TLS handshake. For a later request, it starts at the
    request's first byte."""
    idle: float = 75.0
    """Longest time in seconds from the end of a response to the first byte of the connection's next
    request."""


class Connection(asyncio.Protocol):
    """One client connection. It passes all data on to the HTTP protocol of aiohttp. It closes itself if the
    headers of a request do not arrive in time.
    """

    def __init__(self, peer: str, listener: "BoundedListener") -> None:
        self.peer = peer
        """The address of the client, without the port."""
        self.answering = False
        """Whether the headers of a request have arrived, but its response is not complete yet."""
        self._listener = listener
        self._inner: asyncio.Protocol | None = None
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def is_open(self) -> bool:
        """Whether the TLS handshake was completed. This remains true after the connection has ended."""
        return self._transport is not None

    def end(self) -> None:
        """Close the connection at once. Do nothing if its TLS handshake has not ended yet."""
        if self._transport is not None:
            self._transport.abort()

    def begin_request(self) -> None:
        """Record that the headers of a request are complete."""
        self.answering = True
        self._clear_deadline()

    def end_request(self) -> None:
        """Record that the response to the request is complete."""
        self.answering = False

    # The methods of asyncio's Protocol. Each one passes its call on to aiohttp.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._inner = self._listener.opened(self, self._transport)
        self._inner.connection_made(transport)
        self._set_deadline()

    def data_received(self, data: bytes) -> None:
        if not self.answering and self._deadline is None:
            self._set_deadline()
        self._protocol.data_received(data)

    def eof_received(self) -> bool | None:
        return self._protocol.eof_received()

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        self._clear_deadline()
        if self._transport is not None:
            self._listener.closed(self, self._transport)
            self._protocol.connection_lost(error)

    @property
    def _protocol(self) -> asyncio.Protocol:
        if self._inner is None:
            raise AssertionError("asyncio must call connection_made before the other methods of the protocol")
        return self._inner

    def _set_deadline(self) -> None:
        seconds = self._listener.limits.headers
        self._deadline = asyncio.get_running_loop().call_later(seconds, self._late)

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        self._listener.count(f"no whole request headers within {self._listener.limits.headers:g} s")
        self.end()


def displaced(held: Collection[Connection], peer: str, limits: Limits) -> Connection | None:
    """Return the open connection to close so that one more connection of ``peer`` can be accepted.

    ``held`` are the open connections, oldest first. A connection whose request is being answered is never
    returned. There are two cases:

    - The address ``peer`` has as many connections as one address may have. Return its oldest connection.
    - Otherwise the total number of connections has reached its limit. Return the oldest connection of the
      address with the most connections.

    Return ``None`` if no connection can be closed.
    """
    waiting = [one for one in held if not one.answering]
    if sum(one.peer == peer for one in held) >= limits.per_address:
        return next((one for one in waiting if one.peer == peer), None)
    if not waiting:
        return None
    most = Counter(one.peer for one in waiting).most_common(1)[0][0]
    return next(one for one in waiting if one.peer == most)


class BoundedListener:
    """A server of a web application that limits the number of connections. All calls must come from one event
    loop.
    """

    def __init__(self, application: web.Application, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        application.middlewares.append(self._mark)
        self._runner = web.AppRunner(
            application, access_log=None, keepalive_timeout=self.limits.idle, shutdown_timeout=CLOSE_SECONDS
        )
        self._sockets: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._held: dict[Connection, asyncio.Task[None] | None] = {}
        """The open connections, oldest first, each with the task of its TLS handshake, or ``None`` after the
        handshake."""
        self._by_transport: dict[asyncio.BaseTransport, Connection] = {}
        self._ended: Counter[str] = Counter()

    async def start(
        self, host: str, port: int, context: ssl.SSLContext | None = None, setting: str = "the port"
    ) -> None:
        """Listen on ``port`` of the IP address ``host``. Without a ``context`` the connections do not use
        TLS.

        ``setting`` is the name of the setting with the port, for an error message. Raises CannotListen as
        ``listening`` does.
        """
        await self._runner.setup()
        made = listening(host, port, setting, BACKLOG)
        made.setblocking(False)
        self._sockets.append(made)
        self._accepting.append(asyncio.create_task(self._accept(made, context)))

    async def close(self) -> None:
        """Stop listening, and end every connection when its request is answered, or after
        ``CLOSE_SECONDS``.
        """
        for task in self._accepting:
            task.cancel()
        handshakes = [task for task in self._held.values() if task is not None]
        for task in handshakes:
            task.cancel()
        await asyncio.gather(*self._accepting, *handshakes, return_exceptions=True)
        for each in self._sockets:
            each.close()
        await self._runner.cleanup()

    @property
    def connections(self) -> int:
        """The number of connections that are open now."""
        return len(self._held)

    # Methods that the connections call.

    def opened(self, connection: Connection, transport: asyncio.Transport) -> asyncio.Protocol:
        """Record that a connection is open: its TLS handshake is complete, or the connection has no TLS.

        Return a new protocol of aiohttp, which serves the connection.
        """
        self._held[connection] = None
        self._by_transport[transport] = connection
        server = self._runner.server
        if server is None:
            raise AssertionError(
                "a connection was accepted before the setup of the web server or after its cleanup"
            )
        return server()

    def closed(self, connection: Connection, transport: asyncio.Transport) -> None:
        """Remove an ended connection from the open connections."""
        self._held.pop(connection, None)
        self._by_transport.pop(transport, None)

    def count(self, why: str) -> None:
        """Count a connection that the listener closes for the reason ``why``. The counts are logged at most
        every ``SAID_AGAIN_SECONDS``.
        """
        if not self._ended:
            asyncio.get_running_loop().call_later(SAID_AGAIN_SECONDS, self._tell)
        self._ended[why] += 1

    def _tell(self) -> None:
        for why, times in self._ended.items():
            _log.warning("%d connections were closed: %s", times, why)
        self._ended.clear()

    # Accepting.

    async def _accept(self, listening: socket.socket, context: ssl.SSLContext | None) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, address = await loop.sock_accept(listening)
            except OSError as error:
                self.count(f"accept failed: {error.strerror}")
                await asyncio.sleep(ACCEPT_RETRY_SECONDS)
                continue
            peer = peer_of(address[0])
            if self._has_place(peer):
                self._begin(Connection(peer, self), accepted, context)
            else:
                accepted.close()
            # While connections wait in the kernel, sock_accept returns without a pause. So without this line,
            # the event loop would run nothing else.
            await asyncio.sleep(0)

    def _has_place(self, peer: str) -> bool:
        """Return whether one more connection of the address ``peer`` can be accepted. If needed, close an
        older connection.
        """
        limits = self.limits
        of_peer = sum(one.peer == peer for one in self._held)
        if len(self._held) < limits.connections and of_peer < limits.per_address:
            return True
        self.count(
            f"too many connections are open (at most {limits.connections},"
            f" {limits.per_address} of one address)"
        )
        oldest = displaced(self._held, peer, limits)
        if oldest is None:
            return False
        handshake = self._held.pop(oldest)
        if handshake is not None:
            handshake.cancel()
        oldest.end()
        return True

    def _begin(self, connection: Connection, accepted: socket.socket, context: ssl.SSLContext | None) -> None:
        handshake = asyncio.create_task(self._open(connection, accepted, context))
        handshake.add_done_callback(lambda _: self._after_handshake(connection, accepted))
        self._held[connection] = handshake

    async def _open(
        self, connection: Connection, accepted: socket.socket, context: ssl.SSLContext | None
    ) -> None:
        """Do the TLS handshake of a connection. After it, asyncio calls the methods of ``connection``."""
        deadline = self.limits.handshake if context else None
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection, accepted, ssl=context,
                ssl_handshake_timeout=deadline, ssl_shutdown_timeout=deadline,
            )  # fmt: skip
        except ConnectionAbortedError:
            self.count(f"no TLS handshake within {deadline:g} s")
        except ssl.SSLError:
            self.count("the TLS handshake failed")
        except OSError:
            pass  # the client closed the connection, for example a probe that only connects

    def _after_handshake(self, connection: Connection, accepted: socket.socket) -> None:
        """Remove a connection whose TLS handshake failed, was cancelled or never began."""
        if not connection.is_open:
            self._held.pop(connection, None)
            accepted.close()

    @web.middleware
    async def _mark(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        connection = self._by_transport.get(request.transport) if request.transport else None
        if connection is None:
            return await handler(request)
        connection.begin_request()
        try:
            return await handler(request)
        finally:
            connection.end_request()
