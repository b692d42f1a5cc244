"""The engine of a vLLM server, used by several threads: restarts, and changes of the adapter."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rft_trainer.rollout import vllm_engine
from rft_trainer.rollout.engine import AdapterVersion, ConnectionLost, Generated, Request, SamplingParameters
from rft_trainer.rollout.vllm_engine import VllmEngine

ASKED = Request((1,), 0, SamplingParameters(1.0, 1.0, 0, 8))
ADAPTER = AdapterVersion("second", Path("second"))


class Server:
    """A stand-in for ``VllmServer`` whose start and stop take no time."""

    socket, api_key = Path("vllm.sock"), "key"
    starts = 0

    def __init__(self, _options: Any) -> None: ...

    def start(self) -> None:
        type(self).starts += 1

    def stop(self) -> None: ...
    def wait_until_ready(self, _should_stop: Any) -> None: ...
    def alive(self) -> bool:
        return True


class Connection:
    """A stand-in for ``VllmClient``. A request waits until ``go`` is set. Requests to the first server then
    raise ConnectionLost.
    """

    def __init__(self, *_: Any) -> None:
        self.models: list[str] = []
        self.loaded: list[str] = []
        self.sent = threading.Semaphore(0)
        self.go = threading.Event()

    def load_adapter(self, adapter: AdapterVersion) -> None:
        self.loaded.append(adapter.name)

    def complete(self, model: str, requests: dict[int, Request], done: dict[int, Generated], *_: Any) -> None:
        self.models.append(model)
        lost = Server.starts == 1
        self.sent.release()
        assert self.go.wait(10)
        if lost:
            raise ConnectionLost("died")
        done |= {key: Generated((1,), (0.0,), "", "stop") for key in requests}


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> VllmEngine:
    monkeypatch.setattr(vllm_engine, "VllmServer", Server)
    monkeypatch.setattr(vllm_engine, "VllmClient", Connection)
    monkeypatch.setattr(Server, "starts", 0)
    return VllmEngine(None)  # type: ignore[arg-type]


def test_a_server_that_dies_under_several_calls_is_restarted_once(engine: VllmEngine) -> None:
    client: Any = engine._client
    with ThreadPoolExecutor(4) as threads:
        calls = [threads.submit(engine.generate, [ASKED]) for _ in range(4)]
        for _ in calls:
            assert client.sent.acquire(timeout=10)
        client.go.set()
        assert [len(call.result(10)) for call in calls] == [1] * 4
    assert engine.restarts == 1
    assert Server.starts == 2


def test_an_adapter_waits_for_requests_in_flight_and_later_requests_wait_for_it(engine: VllmEngine) -> None:
    client: Any = engine._client
    Server.starts = 2
    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(engine.generate, [ASKED])
        assert client.sent.acquire(timeout=10)
        changed = threads.submit(engine.use_adapter, ADAPTER)
        while not engine._changing:
            threading.Event().wait(0.001)
        second = threads.submit(engine.generate, [ASKED])
        assert not client.sent.acquire(timeout=0.05)
        assert client.loaded == []
        client.go.set()
        first.result(10)
        changed.result(10)
        second.result(10)
    assert client.loaded == ["second"]
    assert client.models == ["base", "second"]
