"""The webhook's server, called over TLS by a real client."""

import asyncio
import json
import logging
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from rft_operator import tls
from rft_operator.cluster import Unavailable
from rft_operator.webhook import server
from rft_operator.webhook.__main__ import main
from rft_operator.webhook.logs import JsonFormatter
from rft_operator.webhook.server import MAX_REVIEW_BYTES, VALIDATE_PATH, run
from rft_operator.webhook.settings import WebhookSettings
from tests.admission import admission_review
from tests.manifests import manifest
from tests.ports import free_ports

ROOT = Path(__file__).parents[2]
NAMES = ("hook.rft.svc", "127.0.0.1")
NOW = datetime.now(UTC)
FIRST = tls.renewed(None, NAMES, NOW - tls.SERVING_LIFE + timedelta(days=1), tls.WEBHOOK)
SECOND = tls.renewed(FIRST, NAMES, NOW, tls.WEBHOOK)


def trusting(bundle: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(verify=ssl.create_default_context(cadata=bundle), trust_env=False)


class Running:
    """A webhook that runs in the test's event loop."""

    def __init__(self, settings: WebhookSettings, task: asyncio.Task[None], stop: asyncio.Event) -> None:
        self.url = f"https://127.0.0.1:{settings.port}{VALIDATE_PATH}"
        self._health = f"http://127.0.0.1:{settings.health_port}"
        self.task = task
        self.stop = stop

    async def post(self, content: bytes | Any, bundle: str = FIRST.ca_bundle) -> httpx.Response:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        async with trusting(bundle) as client:
            return await client.post(self.url, content=body, headers={"Content-Type": "application/json"})

    async def probe(self, path: str) -> httpx.Response | None:
        async with httpx.AsyncClient(trust_env=False) as client:
            try:
                return await client.get(self._health + path)
            except httpx.ConnectError:
                return None

    async def readiness(self, status: int) -> str:
        """Wait at most 10 s until the readiness probe responds with this HTTP status. Return its text."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            assert not self.task.done() or self.task.result() is None
            answer = await self.probe("/readyz")
            if answer is not None and answer.status_code == status:
                return answer.text
            await asyncio.sleep(0.01)
        raise AssertionError(f"the readiness probe never responded with {status}")


@asynccontextmanager
async def webhook(
    source: Callable[[], tls.KeyPair] = lambda: FIRST, **settings: Any
) -> AsyncIterator[Running]:
    port, health_port = free_ports(2)
    wanted = WebhookSettings("127.0.0.1", port, health_port, **{"drain_seconds": 0, **settings})
    stop = asyncio.Event()
    task = asyncio.create_task(run(wanted, source, stop))
    try:
        yield Running(wanted, task, stop)
    finally:
        stop.set()
        await asyncio.wait_for(task, 10)


def test_reviews_are_answered_over_tls(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def scene() -> None:
        async with webhook() as hook:
            await hook.readiness(200)
            good = await hook.post(admission_review(manifest()))
            assert (good.status_code, good.json()["response"]["allowed"]) == (200, True)
            bad = await hook.post(admission_review(manifest(storage={}, model={"name": "se/cret"})))
            assert (bad.status_code, bad.json()["response"]["allowed"]) == (200, False)

    asyncio.run(scene())
    lines = [json.loads(JsonFormatter().format(record)) for record in caplog.records]
    reviewed = [line for line in lines if line["message"] == "reviewed"]
    assert [line["allowed"] for line in reviewed] == [True, False]
    assert (reviewed[1]["name"], reviewed[1]["problems"]) == ("job", ["spec.storage"])
    assert "se/cret" not in caplog.text + json.dumps(lines), "the log must not contain the bodies of requests"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"\xff", 400),
        (b"[" * 100_000, 400),
        (b"{}", 400),
        (json.dumps(admission_review(manifest(), operation="DELETE")).encode(), 400),
        (b" " * (MAX_REVIEW_BYTES + 1), 413),
    ],
    ids=["no JSON", "no text", "very deep", "no review", "a deletion", "too large"],
)
def test_a_request_that_is_not_a_review_gets_a_json_error(body: bytes, status: int) -> None:
    async def scene() -> httpx.Response:
        async with webhook() as hook:
            await hook.readiness(200)
            return await hook.post(body)

    answer = asyncio.run(scene())
    assert answer.status_code == status
    assert answer.json()["error"]


def test_a_request_with_an_endless_body_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "BODY_SECONDS", 0.05)

    async def scene() -> bytes:
        async with webhook() as hook:
            await hook.readiness(200)
            context = ssl.create_default_context(cadata=FIRST.ca_bundle)
            port = httpx.URL(hook.url).port
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            writer.write(f"POST {VALIDATE_PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{{".encode())
            line = await reader.readline()
            writer.transport.abort()
            return line

    assert b" 408 " in asyncio.run(scene())


def test_a_client_that_does_not_trust_the_ca_cannot_connect() -> None:
    stranger = tls.renewed(None, NAMES, NOW).ca_bundle

    async def scene() -> None:
        async with webhook() as hook:
            await hook.readiness(200)
            await hook.post(b"{}", stranger)

    with pytest.raises(httpx.ConnectError):
        asyncio.run(scene())


def serial(pem: str) -> str:
    return ssl.PEM_cert_to_DER_cert(pem).hex()


async def served(hook: Running) -> str:
    """Return the certificate that the server presents to a new connection, as hexadecimal text."""
    context = ssl.create_default_context(cadata=FIRST.ca_bundle)
    port = httpx.URL(hook.url).port
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return shown.hex()


def test_a_renewed_certificate_is_served_without_a_restart() -> None:
    pairs: list[tls.KeyPair] = [FIRST]

    async def scene() -> None:
        async with webhook(lambda: pairs[-1], check_seconds=0.02) as hook:
            await hook.readiness(200)
            assert await served(hook) == serial(FIRST.certificate)
            pairs.append(SECOND)
            deadline = time.monotonic() + 5
            while await served(hook) != serial(SECOND.certificate):
                assert time.monotonic() < deadline, "the new certificate was not used within 5 s"

    asyncio.run(scene())


def test_partly_replaced_files_do_not_replace_the_certificate_in_use(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pairs = [FIRST, tls.KeyPair(SECOND.certificate, FIRST.key)]

    async def scene() -> None:
        async with webhook(lambda: pairs.pop(0) if len(pairs) > 1 else pairs[0], check_seconds=0.02) as hook:
            await hook.readiness(200)
            while "could not be checked" not in caplog.text:
                await asyncio.sleep(0.01)
            assert await served(hook) == serial(FIRST.certificate)
            assert (await hook.post(admission_review(manifest()))).status_code == 200

    asyncio.run(scene())


def test_the_webhook_is_live_but_not_ready_until_the_api_server_can_trust_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "RETRY_SECONDS", 0.02)
    reachable: list[bool] = []

    def source() -> tls.KeyPair:
        if not reachable:
            raise Unavailable(0, "no API server")
        return FIRST

    async def scene() -> None:
        async with webhook(source) as hook:
            assert "no certificate" in await hook.readiness(503)
            alive = await hook.probe("/healthz")
            assert alive is not None
            assert alive.status_code == 200
            with pytest.raises(httpx.ConnectError):
                await hook.post(b"{}")
            reachable.append(True)
            assert await hook.readiness(200) == "ok"

    asyncio.run(scene())


def test_reviews_are_still_answered_for_a_while_after_sigterm() -> None:
    async def scene() -> None:
        async with webhook(drain_seconds=0.3) as hook:
            await hook.readiness(200)
            hook.stop.set()
            assert "stops" in await hook.readiness(503)
            assert (await hook.post(admission_review(manifest()))).status_code == 200

    asyncio.run(scene())


def test_the_program_serves_until_sigterm(tmp_path: Path) -> None:
    (tmp_path / "tls.crt").write_text(FIRST.certificate)
    (tmp_path / "tls.key").write_text(FIRST.key)
    port, health_port = free_ports(2)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "operator"),
        "RFT_TLS_FOLDER": str(tmp_path),
        "RFT_WEBHOOK_BIND": "127.0.0.1",
        "RFT_WEBHOOK_PORT": str(port),
        "RFT_HEALTH_PORT": str(health_port),
        "RFT_DRAIN_SECONDS": "0",
    }
    program = [sys.executable, "-m", "rft_operator.webhook"]
    process = subprocess.Popen(program, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        started = [json.loads(process.stderr.readline())["message"] for _ in range(2)]
        assert started == ["certificate loaded", "serving"]
        context = ssl.create_default_context(cadata=FIRST.ca_bundle)
        with httpx.Client(verify=context, trust_env=False) as client:
            answer = client.post(
                f"https://127.0.0.1:{port}{VALIDATE_PATH}", json=admission_review(manifest(storage={}))
            )
        assert answer.json()["response"]["allowed"] is False
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert json.loads(process.stderr.readline())["problems"] == ["spec.storage"]
    finally:
        process.kill()
        process.communicate()


def test_a_missing_setting_gives_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in os.environ if name.startswith("RFT_")]:
        monkeypatch.delenv(name)
    assert main([]) == 2
    assert capsys.readouterr().err.startswith("error: RFT_TLS_NAMES is not set")


@pytest.mark.parametrize("kubeconfig", [[], ["--kubeconfig", "/missing/config"]])
def test_a_missing_kubeconfig_gives_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kubeconfig: list[str]
) -> None:
    for name in [name for name in os.environ if name.startswith(("RFT_", "KUBERNETES_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RFT_TLS_NAMES", "a.svc")
    assert main(kubeconfig) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(
        "error: the kubeconfig /missing" if kubeconfig else "error: this process is in no pod"
    )


def test_a_port_in_use_gives_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in [name for name in os.environ if name.startswith("RFT_")]:
        monkeypatch.delenv(name)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        settings = {"RFT_HEALTH_PORT": port, "RFT_WEBHOOK_BIND": "127.0.0.1", "RFT_TLS_FOLDER": str(tmp_path)}
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        assert main([]) == 2
    assert port in capsys.readouterr().err
