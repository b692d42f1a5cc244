"""Measures the webhook while thousands of connections stay open without a complete request.

`make bench-connections` starts the webhook as a separate process, without an API server. The benchmark opens
connections of one kind, from one address or from many addresses. Each connection stays open until the webhook
closes it. At the same time a client with another address sends AdmissionReviews, each over a new connection.
The table shows the webhook's peak memory and the client's response times.
"""

import argparse
import asyncio
import json
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rft_operator import tls
from rft_operator.webhook.server import VALIDATE_PATH
from tests.admission import admission_review
from tests.manifests import manifest
from tests.ports import free_ports
from tests.waiting import wait_until

ROOT = Path(__file__).parents[1]
HERE = "127.0.0.1"
CLIENT = "127.0.0.2"
"""Address of the client whose response times are measured."""
KINDS = ("silent", "without a request", "half a header", "slow header")
"""The kinds of connections. They send, in this order: nothing; a TLS handshake but no request; only the
beginning of a header; a header, slowly.
"""
SECONDS = 15.0
"""Seconds for which each kind of connection is measured."""
PAUSE_SECONDS = 0.25
"""Seconds between two AdmissionReviews that the measured client sends to the webhook."""


def addresses(count: int) -> list[str]:
    """Return ``count`` different IP addresses of this machine."""
    return [f"127.1.{number // 250}.{1 + number % 250}" for number in range(count)]


@asynccontextmanager
async def crowd(
    port: int, kind: str, count: int, sources: Sequence[str], context: ssl.SSLContext
) -> AsyncIterator[None]:
    """Keep ``count`` connections open to the port ``port`` of this machine.

    ``sources`` are the client addresses, used in turn. ``kind`` is one of ``KINDS``. When the server closes a
    connection, a new one is opened one second later. So the number of connections stays about the same.
    """
    opening = asyncio.Semaphore(64)
    tasks = [
        asyncio.create_task(_stay(port, kind, sources[number % len(sources)], context, opening))
        for number in range(count)
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.5)  # transports whose handshake was cancelled close in the loop's next rounds


async def _stay(
    port: int, kind: str, source: str, context: ssl.SSLContext, opening: asyncio.Semaphore
) -> None:
    """Open a connection, send the data of its kind, wait until the server closes it. Repeat after 1 s."""
    encrypted: dict[str, Any] = {} if kind == "silent" else {"ssl": context, "server_hostname": HERE}
    while True:
        with suppress(OSError), socket.socket() as plain:
            plain.setblocking(False)
            plain.bind((source, 0))
            async with opening:
                await asyncio.get_running_loop().sock_connect(plain, (HERE, port))
                reader, writer = await asyncio.open_connection(sock=plain, **encrypted)
            try:
                await _send(kind, writer)
                await reader.read()
            finally:
                writer.transport.abort()
        await asyncio.sleep(1)


async def _send(kind: str, writer: asyncio.StreamWriter) -> None:
    if kind == "half a header":
        writer.write(b"POST / HTTP/1.1\r\nHost: he")
    if kind == "slow header":
        writer.write(b"POST / HTTP/1.1\r\n")
        while not writer.transport.is_closing():
            writer.write(b"x")
            await asyncio.sleep(2)


def resident_mib(pid: int) -> float:
    """Return the resident memory of a process in MiB."""
    line = next(
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")
    )
    return int(line.split()[1]) / 1024


async def measure(
    pid: int, request: Callable[[], bool], seconds: float = SECONDS
) -> tuple[float, list[float], int]:
    """Call ``request`` repeatedly for ``seconds`` seconds. Each call sends one request.

    Returns:
        The peak resident memory of the process ``pid`` in MiB, the seconds of each request, and the number of
        requests that failed.
    """
    highest, took, failed = 0.0, [], 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        failed += not await asyncio.to_thread(request)
        took.append(time.monotonic() - began)
        highest = max(highest, resident_mib(pid))
        await asyncio.sleep(PAUSE_SECONDS)
    return highest, took, failed


def percentile(values: Sequence[float], share: float) -> float:
    """Return the percentile of ``values`` for this share (0 to 1)."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


class Reviews:
    """A client that sends AdmissionReviews of an RFTJob, each over a new connection."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self._port, self._context = port, context
        body = json.dumps(admission_review(manifest())).encode()
        head = f"POST {VALIDATE_PATH} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n"
        self._request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def send(self) -> bool:
        """Send a review. Return whether the webhook responded with HTTP status 200."""
        with (
            suppress(OSError),
            socket.create_connection((HERE, self._port), 10, (CLIENT, 0)) as plain,
            self._context.wrap_socket(plain, server_hostname=HERE) as connection,
        ):
            connection.sendall(self._request)
            return connection.recv(65536).startswith(b"HTTP/1.1 200")
        return False


@contextmanager
def webhook(folder: Path, identity: tls.Identity) -> Iterator[tuple[int, int]]:
    """Start the webhook. Yield its PID and its port."""
    (folder / "tls.crt").write_text(identity.certificate)
    (folder / "tls.key").write_text(identity.key)
    port, health = free_ports(2)
    environment = os.environ | {
        "PYTHONPATH": str(ROOT / "operator"),
        "RFT_TLS_FOLDER": str(folder),
        "RFT_WEBHOOK_PORT": str(port),
        "RFT_HEALTH_PORT": str(health),
    }
    command = [sys.executable, "-m", "rft_operator.webhook"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        reviews = Reviews(port, ssl.create_default_context(cadata=identity.ca_bundle))
        wait_until("the webhook answers", reviews.send, 60)
        yield process.pid, port
    finally:
        process.terminate()
        process.wait(30)


async def _row(pid: int, port: int, kind: str, count: int, spread: int, context: ssl.SSLContext) -> str:
    async with crowd(port, kind, count, addresses(spread), context):
        await asyncio.sleep(2)
        highest, took, failed = await measure(pid, Reviews(port, context).send)
    p50, p99 = (1000 * percentile(took, share) for share in (0.5, 0.99))
    return f"| {kind} | {count} | {spread} | {highest:.0f} | {len(took)} | {failed} | {p50:.0f} | {p99:.0f} |"


def main() -> None:
    """Measure every kind of connection, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--counts",
        type=int,
        nargs="+",
        default=[1000, 5000],
        help="numbers of connections that are open at the same time",
    )
    options = parser.parse_args()
    identity = tls.renewed(None, (HERE,), datetime.now(UTC))
    context = ssl.create_default_context(cadata=identity.ca_bundle)
    print("| connections | count | addresses | memory, MiB | reviews | not answered | p50, ms | p99, ms |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder, webhook(Path(folder), identity) as (pid, port):
        print(asyncio.run(_row(pid, port, "none", 0, 1, context)), flush=True)
        for count in options.counts:
            for spread in (1, 1000):
                for kind in KINDS:
                    print(asyncio.run(_row(pid, port, kind, count, spread, context)), flush=True)


if __name__ == "__main__":
    main()
