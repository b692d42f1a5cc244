"""If the API server refuses a watch, the operator retries this watch without end.

All other watches continue to work. While watches are refused, the operator can still end within seconds.
"""

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.integration.operator_support import RFTJOBS, Api, Object, Operator, Run
from tests.integration.proxy_support import CLOSED, Proxy, answer
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster
LEASES = "apis/coordination.k8s.io/v1/namespaces/{}/leases"
STOP_SECONDS = 10.0
ERROR_EVENT = answer(200, {"type": "ERROR", "object": {"kind": "Status", "code": 500, "message": "broken"}})
NO_EVENT = answer(200, {"kind": "Status"})


@pytest.fixture(scope="module")
def namespaces(api: Api) -> Iterator[tuple[str, str]]:
    """Two namespaces that the operator watches. In the tests a proxy refuses the watches of the
    second one.
    """
    names = f"rft-home-{uuid4().hex[:8]}", f"rft-lost-{uuid4().hex[:8]}"
    for name in names:
        made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        api.call("POST", "api/v1/namespaces", made)
    yield names
    for name in names:
        api.call("DELETE", f"api/v1/namespaces/{name}")


@pytest.fixture(scope="module")
def proxy(kubeconfig: Path) -> Iterator[Proxy]:
    proxy = Proxy(kubeconfig)
    yield proxy
    proxy.close()


@pytest.fixture(scope="module")
def serving(
    api: Api, proxy: Proxy, namespaces: tuple[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Operator]:
    """An operator for both namespaces, which calls the API server through the proxy.

    It is not started: see ``running``. A test may stop it.
    """
    folder = tmp_path_factory.mktemp("refused")
    operator = Operator(
        proxy.kubeconfig(folder / "kubeconfig"),
        namespaces[0],
        folder / "log",
        everywhere=True,
        RFT_WATCH_NAMESPACES=",".join(namespaces),
        RFT_LEASE_SECONDS="15",
    )
    yield operator
    proxy.accept()
    operator.kill()


@pytest.fixture
def running(serving: Operator, proxy: Proxy, api: Api, namespaces: tuple[str, str]) -> Operator:
    """The operator of ``serving``. It runs, and the API server accepts all its watches."""
    proxy.accept()
    if not serving.is_running:
        forget_lease(api, namespaces[0])
        serving.start()
    wait_until("all watches are accepted", lambda: serving.metric("rft_watch_refused") == 0)
    return serving


def forget_lease(api: Api, namespace: str) -> None:
    """Delete the Lease that an ended operator did not release. So the next operator can start at once."""
    there = Api(api._cluster, namespace)
    if there.find(LEASES, "rft-operator") is not None:
        there.delete(LEASES, "rft-operator")


def submit(api: Api, namespace: str, manifest: Callable[..., Object]) -> Run:
    """Create an RFTJob in a namespace."""
    there = Api(api._cluster, namespace)
    return Run(there, there.create(RFTJOBS, manifest()))


@pytest.mark.parametrize(
    "refusal", [answer(403), answer(404), answer(503), CLOSED], ids=["403", "404", "503", "closed"]
)
def test_a_namespace_that_is_refused_is_served_again_and_disturbs_no_other(
    refusal: bytes,
    running: Operator,
    proxy: Proxy,
    api: Api,
    namespaces: tuple[str, str],
    manifest: Callable[..., Object],
) -> None:
    home, lost = namespaces
    proxy.refuse(f"/namespaces/{lost}/", refusal)
    path = f"/apis/rft.dev/v1alpha1/namespaces/{lost}/rftjobs"
    wait_until("all its watches are refused", lambda: running.metric("rft_watch_refused") == 4)
    assert running.metric(f'rft_watch_refused{{path="{path}"}}') == 1
    assert f"the watch of {path} is refused" in running.log.read_text()

    waiting = submit(api, lost, manifest)
    served = submit(api, home, manifest)
    served.wait_for_phase("Pending", 10)
    assert running.health() == (200, "ok")
    assert "phase" not in waiting.status

    proxy.accept()
    waiting.wait_for_phase("Pending", 20)
    wait_until("all watches are accepted", lambda: running.metric("rft_watch_refused") == 0)
    running.check()


def test_an_error_event_in_every_watch_delays_changes_and_ends_nothing(
    running: Operator,
    proxy: Proxy,
    api: Api,
    namespaces: tuple[str, str],
    manifest: Callable[..., Object],
) -> None:
    proxy.refuse("watch=true", ERROR_EVENT)
    wait_until("all watches are refused", lambda: running.metric("rft_watch_refused") == 8)
    assert "500 broken" in running.log.read_text()
    submit(api, namespaces[0], manifest).wait_for_phase("Pending", 60)
    proxy.accept()
    wait_until("all watches are accepted", lambda: running.metric("rft_watch_refused") == 0, 60)
    running.check()


def ends_within(operator: Operator, seconds: float) -> int:
    """Wait until the operator has ended; return its exit code. Fail if it takes longer than ``seconds``."""
    began = time.monotonic()
    code = operator.wait(seconds + 10)
    took = time.monotonic() - began
    assert took < seconds, f"it took {took:.1f} s:\n{operator.log.read_text()[-3000:]}"
    return code


def test_a_stop_signal_ends_the_operator_while_everything_is_refused(running: Operator, proxy: Proxy) -> None:
    proxy.refuse("", answer(503), but="/leases/")  # without its Lease the operator ends by itself
    wait_until("all watches are refused", lambda: running.metric("rft_watch_refused") == 8)
    running.send(signal.SIGTERM)
    assert ends_within(running, STOP_SECONDS) == 0


def test_a_stop_signal_ends_the_operator_while_nothing_is_answered(running: Operator, proxy: Proxy) -> None:
    proxy.silent = ""
    try:
        running.send(signal.SIGTERM)
        ends_within(running, STOP_SECONDS)
    finally:
        proxy.silent = None


def test_a_watch_that_kopf_cannot_read_ends_the_operator(running: Operator, proxy: Proxy) -> None:
    proxy.refuse("watch=true", NO_EVENT)
    assert ends_within(running, STOP_SECONDS) == 1
    assert "so this process ends with exit code 1" in running.log.read_text()


def test_an_operator_that_starts_too_early_waits(
    serving: Operator,
    proxy: Proxy,
    api: Api,
    namespaces: tuple[str, str],
    manifest: Callable[..., Object],
) -> None:
    launch_too_early(serving, proxy)
    proxy.refuse("/apis/rft.dev", answer(503))
    assert serving.health() == (200, "ok")
    proxy.accept()
    submit(api, namespaces[0], manifest).wait_for_phase("Pending", 20)


def test_a_stop_signal_ends_an_operator_that_waits_for_the_crd(serving: Operator, proxy: Proxy) -> None:
    launch_too_early(serving, proxy)
    serving.send(signal.SIGTERM)
    assert ends_within(serving, STOP_SECONDS) == 0


def launch_too_early(operator: Operator, proxy: Proxy) -> None:
    """Start the operator while the API server does not know the kind RFTJob.

    Wait until the operator's log says that it waits for the CRD.
    """
    if operator.is_running:
        operator.stop()
    proxy.refuse("/apis/rft.dev", answer(404))
    before = operator.log.read_text()
    operator.launch()
    wait_until("it waits", lambda: "waits for the CRD" in operator.log.read_text()[len(before) :])
