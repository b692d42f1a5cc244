"""Opens pages in a headless Chromium with its DevTools protocol. Records their requests and messages."""

import asyncio
import base64
import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome")
"""Names of Chromium's program, in the order in which they are tried. Debian calls it ``chromium``."""
WAIT_SECONDS = 60
HEIGHT = 1500
"""Height of a screenshot in pixels."""

Json = dict[str, Any]


@dataclass
class Visit:
    """A page that was opened at one width: its requests, messages and sizes, and a screenshot."""

    width: int
    scroll_width: int
    """Width of the whole page in pixels. If it is larger than ``width``, the page scrolls sideways."""
    tallest_tick: float
    """Height of the tallest text beside the axis of a chart, in pixels."""
    title: str
    text: str
    elements: list[str]
    """The names of the page's HTML elements, e.g. ``img``, each once."""
    picture: bytes
    """A screenshot as PNG."""
    requests: list[str] = field(default_factory=list)
    """The address of each request, including the request for the page itself."""
    messages: list[str] = field(default_factory=list)
    """Messages on the console, exceptions, and messages of the browser itself."""


def program() -> str | None:
    """Return the path of a Chromium, or None if this machine has none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


def visit(address: str, widths: tuple[int, ...], *, dark: bool = False) -> list[Visit]:
    """Open the page at ``address`` once for each width in pixels. Return a ``Visit`` for each width.

    ``dark`` asks for the page's dark colors. Raises TimeoutError if the browser does not answer.
    """
    return asyncio.run(asyncio.wait_for(_visit(address, widths, dark), WAIT_SECONDS))


async def _visit(address: str, widths: tuple[int, ...], dark: bool) -> list[Visit]:
    async with (
        _browser() as url,
        aiohttp.ClientSession() as session,
        session.ws_connect(url, max_msg_size=0) as socket,
    ):
        page = _Page(socket)
        return [await page.visit(address, width, dark) for width in widths]


@asynccontextmanager
async def _browser() -> AsyncIterator[str]:
    """Start a browser, and yield the address of its DevTools."""
    path = program()
    if path is None:
        raise FileNotFoundError("chromium")
    with tempfile.TemporaryDirectory(prefix="rft-chromium-", ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            path,
            "--headless=new",
            "--no-sandbox",  # tests may run as root
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--hide-scrollbars",
            "--remote-debugging-port=0",
            f"--user-data-dir={profile}",
            "about:blank",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            assert process.stderr is not None
            async for line in process.stderr:
                _, found, address = line.decode(errors="replace").partition("DevTools listening on ")
                if found:
                    yield address.strip()
                    break
        finally:
            process.kill()
            await process.communicate()


class _Page:
    """A tab of the browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0
        self._session: str | None = None
        self._events: list[Json] = []

    async def visit(self, address: str, width: int, dark: bool) -> Visit:
        """Load a page in a window of ``width`` pixels. ``dark``: prefer dark colours.

        Return the page's requests, messages, text and sizes, and a screenshot.
        """
        if self._session is None:
            target = await self._call("Target.createTarget", url="about:blank")
            found = await self._call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
            self._session = found["sessionId"]
            for domain in ("Page", "Network", "Runtime", "Log"):
                await self._call(f"{domain}.enable")
        self._events.clear()
        size = {"width": width, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
        await self._call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self._call("Emulation.setEmulatedMedia", features=[scheme])
        await self._call("Page.navigate", url=address)
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            await self._receive()
        picture = await self._call("Page.captureScreenshot")
        return Visit(
            width=width,
            scroll_width=await self._value("document.documentElement.scrollWidth"),
            tallest_tick=await self._value(
                "Math.max(...[...document.querySelectorAll('.x span, .y')].map(e => e.offsetHeight))"
            ),
            title=await self._value("document.title"),
            text=await self._value("document.body.innerText"),
            elements=await self._value(
                "[...new Set([...document.querySelectorAll('*')].map(e => e.localName))]"
            ),
            picture=base64.b64decode(picture["data"]),
            requests=[
                event["params"]["request"]["url"]
                for event in self._events
                if event["method"] == "Network.requestWillBeSent"
            ],
            messages=[
                json.dumps(event["params"])
                for event in self._events
                if event["method"]
                in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
            ],
        )

    async def _value(self, expression: str) -> Any:
        found = await self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        return found["result"]["value"]

    async def _call(self, method: str, **parameters: Any) -> Json:
        self._number += 1
        number = self._number
        session = {"sessionId": self._session} if self._session else {}
        await self._socket.send_json({"id": number, "method": method, "params": parameters, **session})
        while True:
            message = await self._receive()
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                result: Json = message["result"]
                return result

    async def _receive(self) -> Json:
        message: Json = await self._socket.receive_json()
        if "method" in message:
            self._events.append(message)
        return message


def save(visits: list[Visit], folder: Path, name: str) -> list[Path]:
    """Write the screenshots into a folder as ``NAME-WIDTH.png``, and return their paths."""
    paths = [folder / f"{name}-{each.width}.png" for each in visits]
    for path, each in zip(paths, visits, strict=True):
        path.write_bytes(each.picture)
    return paths
