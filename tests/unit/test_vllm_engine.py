"""The engine of a vLLM server, used by several threads: restarts, and changes of the adapter."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rft_trainer.rollout import vllm_engine
from rft_trainer.rollout.engine import AdapterVersion, ConnectionLost, Generated, Request, SamplingParameters
from rft_trainer.rollout.vllm_engine import VllmEngine
from rft_trainer.rollout.vllm_server import ServerOptions, VllmServer, command

ASKED = Request((1,), 0, SamplingParameters(1.0, 1.0, 0, 8))
ADAPTER = AdapterVersion("second", Path("second"))
OPTIONS = ServerOptions(model=Path(), context_length=8, lora_rank=8, run_dir=Path())


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
        self.unloaded: list[str] = []
        self.sent = threading.Semaphore(0)
        self.go = threading.Event()

    def load_adapter(self, adapter: AdapterVersion) -> None:
        self.loaded.append(adapter.name)

    def unload_adapter(self, name: str) -> None:
        self.unloaded.append(name)

    def complete(self, model: str, requests: dict[int, Request], done: dict[int, Generated], *_: Any) -> None:
        self.models += {request.adapter or model for request in requests.values()}
        lost = Server.starts == 1
        self.sent.release()
        assert self.go.wait(10)
        if lost:
            raise ConnectionLost("died")
        done |= {key: Generated((1,), (0.0,), "", "stop") for key in requests}


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> VllmEngine:
    """Return an engine with one adapter slot, or as many as the test's parameter."""
    monkeypatch.setattr(vllm_engine, "VllmServer", Server)
    monkeypatch.setattr(vllm_engine, "VllmClient", Connection)
    monkeypatch.setattr(Server, "starts", 0)
    return VllmEngine(replace(OPTIONS, adapter_slots=getattr(request, "param", 1)))


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


def asked_of(adapter: str) -> list[Request]:
    return [replace(ASKED, adapter=adapter)]


@pytest.mark.parametrize("engine", [3], indirect=True)
def test_with_several_slots_an_adapter_is_loaded_while_requests_of_others_are_sampled(
    engine: VllmEngine,
) -> None:
    first, third = AdapterVersion("first", Path("first")), AdapterVersion("third", Path("third"))
    client: Any = engine._client
    Server.starts = 2
    assert engine.adapters == 3
    with ThreadPoolExecutor(3) as threads:
        engine.use_adapter(first)
        calls = [threads.submit(engine.generate, asked_of(name)) for name in ("first", "base")]
        for _ in calls:
            assert client.sent.acquire(timeout=10)
        engine.use_adapter(ADAPTER, [first])
        calls.append(threads.submit(engine.generate, asked_of("second")))
        assert client.sent.acquire(timeout=10)
        assert (client.loaded, client.unloaded) == (["first", "second"], [])
        client.go.set()
        for call in calls:
            call.result(10)
    engine.use_adapter(third, [ADAPTER])
    assert (client.loaded, client.unloaded) == (["first", "second", "third"], ["first"])
    assert sorted(client.models) == ["base", "first", "second"]


@pytest.mark.parametrize("engine", [2], indirect=True)
def test_a_restarted_server_has_the_adapters_of_all_batches_and_requests_keep_theirs(
    engine: VllmEngine,
) -> None:
    first = AdapterVersion("first", Path("first"))
    client: Any = engine._client
    with ThreadPoolExecutor(2) as threads:
        engine.use_adapter(first)
        engine.use_adapter(ADAPTER, [first])
        calls = [threads.submit(engine.generate, asked_of(name)) for name in ("first", "second")]
        for _ in calls:
            assert client.sent.acquire(timeout=10)
        client.go.set()
        for call in calls:
            call.result(10)
    assert engine.restarts == 1
    assert client.loaded == ["first", "second", "first", "second"]
    assert sorted(client.models) == ["first", "first", "second", "second"]


@pytest.mark.parametrize(("slots", "arguments"), [(1, ["1", "2"]), (4, ["4", "5"])])
def test_the_server_has_memory_for_one_adapter_more_than_its_slots(slots: int, arguments: list[str]) -> None:
    found = command(replace(OPTIONS, adapter_slots=slots), Path("vllm.sock"))
    assert [found[found.index(name) + 1] for name in ("--max-loras", "--max-cpu-loras")] == arguments


def test_a_server_may_be_stopped_while_another_thread_asks_whether_it_is_alive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reads = iter([SimpleNamespace(poll=lambda: None), None])
    monkeypatch.setattr(VllmServer, "_process", property(lambda _self: next(reads)), raising=False)
    assert object.__new__(VllmServer).alive()
