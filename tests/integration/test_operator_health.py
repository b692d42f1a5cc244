"""The liveness probe fails when a watch is silent. It does not fail when the API server is slow or down."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.integration.operator_support import Api, Operator
from tests.integration.proxy_support import Proxy
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster
LEASE_SECONDS, WATCH_SECONDS, STALE_SECONDS = 15, 5, 25


@pytest.fixture
def proxy(kubeconfig: Path) -> Iterator[Proxy]:
    proxy = Proxy(kubeconfig)
    yield proxy
    proxy.close()


@pytest.fixture
def watching(api: Api, proxy: Proxy, tmp_path: Path) -> Iterator[Operator]:
    """An operator that uses the proxy, with short timeouts, in a namespace without RFTJobs."""
    namespace = f"rft-health-{uuid4().hex[:8]}"
    metadata = {"metadata": {"name": namespace}}
    api.call("POST", "api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", **metadata})
    operator = Operator(
        proxy.kubeconfig(tmp_path / "kubeconfig"),
        namespace,
        tmp_path / "log",
        RFT_LEASE_SECONDS=str(LEASE_SECONDS),
        RFT_WATCH_SECONDS=str(WATCH_SECONDS),
        RFT_STALE_SECONDS=str(STALE_SECONDS),
    )
    try:
        operator.start()
        wait_until("every watch is connected", lambda: len(proxy.watches) == 4)
        assert operator.health() == (200, "ok")
        yield operator
    finally:
        operator.kill()
    api.call("DELETE", f"api/v1/namespaces/{namespace}")


def test_a_silent_watch_fails_the_probe_while_the_api_server_answers(
    watching: Operator, proxy: Proxy
) -> None:
    proxy.silent = "/pods?"
    code, said = wait_until(
        "the probe fails",
        lambda: answer if (answer := watching.health())[0] != 200 else None,
        STALE_SECONDS + WATCH_SECONDS + 20,
    )
    assert code == 500, watching.log.read_text()[-2000:]
    assert "/pods is dead" in said
    assert len(said.splitlines()) == 1, "all other watches stay connected"
    watching.check()


def test_a_slow_api_server_does_not_fail_the_probe(watching: Operator, proxy: Proxy) -> None:
    """The test waits for several reconnects of each watch, so it lasts longer than STALE_SECONDS."""
    before = proxy.watches.copy()
    proxy.delay = 3.0
    rounds = STALE_SECONDS // WATCH_SECONDS

    def went_on() -> bool:
        assert watching.health() == (200, "ok")
        watching.check()
        return all(proxy.watches[kind] >= before[kind] + rounds for kind in before)

    wait_until("each watch has reconnected", went_on, 90)


def test_an_absent_api_server_ends_the_operator_by_its_lease_not_by_the_probe(
    watching: Operator, proxy: Proxy
) -> None:
    proxy.silent = ""
    seen = set()

    def ended() -> bool:
        seen.add(watching.health()[0])
        return "this process ends" in watching.log.read_text()

    wait_until("the operator ends", ended, LEASE_SECONDS + 20)
    assert watching.wait(10) == 1
    assert seen <= {200, 0}
    assert "could not be renewed for 10 s" in watching.log.read_text()
