"""Access to the benchmark's API server, as an administrator."""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, TypeVar

import aiohttp

from tests.cluster.control_plane import ControlPlane

T = TypeVar("T")
Json = dict[str, Any]
NAMESPACE = "bench"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
RFTJOBS = f"/apis/rft.dev/v1alpha1/namespaces/{NAMESPACE}/rftjobs"
JOBS = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
CONFIG_MAPS = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
ACCOUNT = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default"
AT_ONCE = 64
"""Largest number of requests that the benchmark itself sends at the same time."""
WATCHES = 4
"""Number of the benchmark's watches. Each has a connection of its own, besides those for other requests."""


class Api:
    """The API server, called as an administrator."""

    def __init__(self, plane: ControlPlane) -> None:
        """Read the credentials from ``plane``'s kubeconfig."""
        document = json.loads(plane.kubeconfig.read_text())
        self._url = plane.url
        user = document["users"][0]["user"]
        self._tls = ssl.create_default_context(
            cafile=document["clusters"][0]["cluster"]["certificate-authority"]
        )
        self._tls.load_cert_chain(user["client-certificate"], user["client-key"])

    async def __aenter__(self) -> "Api":
        """Open the connections."""
        connector = aiohttp.TCPConnector(limit=AT_ONCE + WATCHES, ssl=self._tls)
        headers = {"User-Agent": "rft-bench"}
        self._session = aiohttp.ClientSession(self._url, connector=connector, headers=headers)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self._session.close()

    async def call(
        self, method: str, path: str, body: Json | None = None, accept: str = "application/json"
    ) -> Json:
        """Send one request. A PATCH is a merge patch. Raises SystemExit if the server refuses the request."""
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        headers = {"Content-Type": kind, "Accept": accept}
        data = None if body is None else json.dumps(body)
        async with self._session.request(method, path, data=data, headers=headers) as answer:
            said = await answer.json()
            if answer.status >= 300:
                raise SystemExit(f"{method} {path}: {answer.status} {said.get('message')}")
            return dict(said)

    async def find(self, path: str) -> Json | None:
        """Return an object, or ``None`` if the object does not exist."""
        async with self._session.get(path) as answer:
            return dict(await answer.json()) if answer.status == 200 else None

    async def accepts(self, path: str, body: Json) -> bool:
        """POST an object to ``path``. Return whether the server accepted the request."""
        headers = {"Content-Type": "application/json"}
        async with self._session.post(path, data=json.dumps(body), headers=headers) as answer:
            return answer.status < 300

    async def watch(
        self, path: str, query: str = "", accept: str = "application/json"
    ) -> AsyncIterator[Json]:
        """Yield the events of a watch. ``query``: further parameters, each after a ``&``."""
        timeout, headers = aiohttp.ClientTimeout(total=None), {"Accept": accept}
        url = f"{path}?watch=true{query}"
        async with self._session.get(url, timeout=timeout, headers=headers) as answer:
            async for line in answer.content:
                yield json.loads(line)


async def each(items: Iterable[T], act: Callable[[T], Awaitable[None]]) -> None:
    """Call ``act`` for each item, with at most ``AT_ONCE`` calls at the same time."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(item: T) -> None:
        async with room:
            await act(item)

    await asyncio.gather(*map(one, items))


async def until(
    what: str, holds: Callable[[], Awaitable[bool]], seconds: float = 600.0, poll: float = 0.5
) -> None:
    """Wait until ``holds`` returns true. After ``seconds``, raise SystemExit with the text ``what``."""
    deadline = time.monotonic() + seconds
    while not await holds():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not within {seconds:.0f} s")
        await asyncio.sleep(poll)
