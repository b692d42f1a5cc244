"""A proxy in front of the API server. It can delay responses, and stop the data of a connection."""

import asyncio
import ssl
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import yaml
from kubernetes import client, config

_CHUNK = 1 << 16


class Proxy:
    """Forwards plain HTTP from the operator over TLS to the API server, with an administrator's certificate.

    A connection is named by the request line of its last request. A silent connection stays open but
    transfers no data in either direction, as after a lost route.
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
        pipe = _Pipe(self)
        answering = asyncio.create_task(pipe.answer(far, answers))
        try:
            # Either peer may close the connection at any time.
            with suppress(OSError):
                await pipe.ask(near, requests)
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)
            # The peer may have closed the connection already.
            for writer in (requests, answers):
                writer.transport.abort()
            await asyncio.gather(requests.wait_closed(), answers.wait_closed(), return_exceptions=True)


class _Pipe:
    """One connection, with the request line of its last request."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._line = ""

    @property
    def _is_silent(self) -> bool:
        return self._proxy.silent is not None and self._proxy.silent in self._line

    async def ask(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        """Forward requests until the operator closes the connection."""
        while data := await source.read(_CHUNK):
            line = data.partition(b"\r\n")[0].decode(errors="replace")
            if line.endswith("HTTP/1.1"):
                self._line = line
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
