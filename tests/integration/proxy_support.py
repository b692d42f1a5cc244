"""A proxy between the operator and the API server.

It can delay responses or replace them. It can also hold back all data of a connection.
"""

import asyncio
import json
import ssl
import threading
from collections import Counter
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from kubernetes import client, config

_CHUNK = 1 << 16
CLOSED = b""
"""A value for the parameter ``answer`` of ``Proxy.refuse``: close the connection without an answer."""


def answer(status: int, body: dict[str, Any] | None = None) -> bytes:
    """Return a response of an API server with the HTTP status ``status``, as bytes.

    ``body`` is sent as JSON. If it is None, the response has the body of a refusal.
    """
    refusal = {"kind": "Status", "status": "Failure", "code": status, "message": "refused by the test"}
    text = json.dumps(refusal if body is None else body).encode()
    head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(text)}\r\nConnection: close\r\n\r\n".encode() + text


class Proxy:
    """Forwards requests from the operator to the API server. The operator needs no certificate.

    The operator sends plain HTTP. The proxy sends TLS with an administrator's certificate. A connection may
    have several requests: "its request line" means that of the newest one. A connection is called silent if
    it stays open, but the proxy forwards no data in either direction, as if a route of the network were lost.
    """

    def __init__(self, kubeconfig: Path) -> None:
        settings = client.Configuration()
        config.load_kube_config(str(kubeconfig), client_configuration=settings)
        address = urlsplit(settings.host)
        self._upstream = (address.hostname, address.port)
        self._tls = ssl.create_default_context(cafile=settings.ssl_ca_cert)
        if settings.cert_file:
            self._tls.load_cert_chain(settings.cert_file, settings.key_file)
        self.delay = 0.0
        """Seconds of delay before each part of a response."""
        self.silent: str | None = None
        """Connections with this text in their request line are silent. Empty: all of them; None: none."""
        self._refused: tuple[str, str, bytes] | None = None
        self._pipes: set[_Pipe] = set()
        self.watches: Counter[str] = Counter()
        """Number of watch requests, by the resource's plural name."""
        self._port = 0
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))
        self._thread.start()
        self._ready.wait()

    def kubeconfig(self, path: Path) -> Path:
        """Write a kubeconfig whose server is this proxy."""
        server = {"server": f"http://127.0.0.1:{self._port}"}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "proxy", "cluster": server}],
            "users": [{"name": "nobody", "user": {}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "nobody"}}],
            "current-context": "proxy",
        }
        path.write_text(yaml.safe_dump(document))
        return path

    def refuse(self, text: str, answer: bytes, but: str = "no such text") -> None:
        """Answer some requests with ``answer``, do not forward them, and close their connections.

        These are the requests whose request line contains ``text``, but not ``but``. An open connection whose
        newest request is one of these, such as a watch, is closed at once.
        """
        self._refused = (text, but, answer)

        def end() -> None:
            for pipe in list(self._pipes):
                if self.answer_to(pipe.line) is not None:
                    pipe.end()

        self._loop.call_soon_threadsafe(end)

    def accept(self) -> None:
        """Forward all requests again."""
        self._refused = None

    def answer_to(self, line: str) -> bytes | None:
        """Return the answer of the proxy to a request with this request line. None: forward the request."""
        if self._refused is None:
            return None
        text, but, answer = self._refused
        return answer if text in line and but not in line else None

    def close(self) -> None:
        """Close all connections."""
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join()
        self._loop.close()

    async def _serve(self) -> None:
        self._closing = asyncio.Event()
        server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self._port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._closing.wait()
        server.close()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _connect(self, near: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        far, requests = await asyncio.open_connection(*self._upstream, ssl=self._tls)
        pipe = _Pipe(self, answers)
        self._pipes.add(pipe)
        answering = asyncio.create_task(pipe.answer(far, answers))
        try:
            # Either peer may close the connection at any time.
            with suppress(OSError):
                await pipe.ask(near, requests)
        finally:
            self._pipes.discard(pipe)
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)
            # The peer may have closed the connection already.
            for writer in (requests, answers):
                writer.transport.abort()
            await asyncio.gather(requests.wait_closed(), answers.wait_closed(), return_exceptions=True)


class _Pipe:
    """One connection of the operator through the proxy. ``line``: request line of its newest request."""

    def __init__(self, proxy: Proxy, operator: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._operator = operator
        self.line = ""

    def end(self) -> None:
        """Close the connection to the operator."""
        self._operator.transport.abort()

    @property
    def _is_silent(self) -> bool:
        return self._proxy.silent is not None and self._proxy.silent in self.line

    async def ask(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        """Forward requests until the operator closes the connection, or the proxy answers one itself."""
        while data := await source.read(_CHUNK):
            line = data.partition(b"\r\n")[0].decode(errors="replace")
            if line.endswith("HTTP/1.1"):
                self.line = line
                instead = self._proxy.answer_to(line)
                if instead is not None:
                    self._operator.write(instead)
                    await self._operator.drain()
                    self._operator.close()
                    return
                if "watch=true" in line:
                    path = line.split()[1].partition("?")[0]
                    self._proxy.watches[path.rpartition("/")[2]] += 1
            if not self._is_silent:
                target.write(data)
                await target.drain()

    async def answer(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        """Forward responses until the API server closes the connection. A silent connection stays open."""
        while data := await source.read(_CHUNK):
            await asyncio.sleep(self._proxy.delay)
            if not self._is_silent:
                target.write(data)
                await target.drain()
        if not self._is_silent:
            target.close()
