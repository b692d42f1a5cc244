"""The liveness probe finds a dead watch and a blocked event loop.

A watch without events counts as alive, and so does a watch that the API server refuses.
"""

import logging
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import REGISTRY

from rft_operator.handlers import watched_paths
from rft_operator.health import LOOP_SECONDS, READY_PATH, Signs, serve

PATH = "/api/v1/pods"


class Time:
    """A clock in seconds. The test sets its time."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def signs(time: Time) -> Signs:
    return Signs(300, time)


def test_nothing_is_dead_before_watches_are_expected(signs: Signs, time: Time) -> None:
    time.now += 1e6
    assert signs.complaints() == []


def test_a_watch_without_events_is_alive_while_it_reconnects(signs: Signs, time: Time) -> None:
    signs.expect([PATH])
    for _ in range(10):
        time.now += 180
        assert signs.complaints() == []
        signs.connected(PATH)


def test_a_watch_that_does_not_reconnect_is_dead(signs: Signs, time: Time) -> None:
    signs.expect([PATH, "/apis/batch/v1/jobs"])
    time.now += 200
    signs.connected(PATH)
    time.now += 101
    assert signs.complaints() == ["the watch of /apis/batch/v1/jobs is dead: no answer for 301 s"]


def test_a_watch_that_was_never_connected_is_dead(signs: Signs, time: Time) -> None:
    signs.expect([PATH])
    time.now += 301
    assert signs.complaints()


def test_a_blocked_event_loop_is_reported(signs: Signs, time: Time) -> None:
    signs.loop_turned()
    time.now += LOOP_SECONDS
    assert signs.complaints() == []
    time.now += 1
    assert signs.complaints() == ["the event loop is blocked for 31 s"]


def test_the_expected_watches_are_those_that_kopf_makes() -> None:
    assert watched_paths([]) == [
        "/apis/rft.dev/v1alpha1/rftjobs",
        "/apis/batch/v1/jobs",
        "/api/v1/pods",
        "/api/v1/configmaps",
    ]
    assert "/api/v1/namespaces/b/pods" in watched_paths(["a", "b"])
    assert len(watched_paths(["a", "b"])) == 8


def test_a_refused_watch_is_not_dead_but_shown(
    signs: Signs, time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    def shown() -> float | None:
        return REGISTRY.get_sample_value("rft_watch_refused", {"path": PATH})

    caplog.set_level(logging.INFO)
    signs.expect([PATH])
    for _ in range(3):
        time.now += 200
        signs.refused(PATH, "403")
    assert signs.complaints() == []
    assert shown() == 1
    signs.connected(PATH)
    assert shown() == 0
    assert [record.message for record in caplog.records] == [
        f"the watch of {PATH} is refused, so changes there are seen late; the operator tries again: 403",
        f"the watch of {PATH} is accepted again",
    ]


def test_other_requests_are_no_signs(signs: Signs, time: Time) -> None:
    signs.expect([PATH])
    time.now += 301
    signs.refused("/apis", "503 Service Unavailable")
    signs.connected("/apis")
    assert len(signs.complaints()) == 1


@pytest.fixture
def probe(signs: Signs) -> Iterator[str]:
    server = serve(signs, 0)
    yield f"http://127.0.0.1:{server.server_address[1]}/healthz"
    server.shutdown()
    server.server_close()


def test_the_probe_names_the_dead_watch(signs: Signs, time: Time, probe: str) -> None:
    with urllib.request.urlopen(probe, timeout=1) as answer:
        assert answer.read() == b"ok"
    signs.expect([PATH])
    time.now += 301
    with pytest.raises(urllib.error.HTTPError, match="500") as caught:
        urllib.request.urlopen(probe, timeout=1)
    with caught.value as answer:
        assert b"/api/v1/pods is dead" in answer.read()


def test_a_process_is_ready_while_it_waits_and_alive_while_it_is_not_ready(signs: Signs, probe: str) -> None:
    ready = probe.replace("/healthz", READY_PATH)
    with pytest.raises(urllib.error.HTTPError, match="500") as caught:
        urllib.request.urlopen(ready, timeout=1)
    caught.value.close()
    with urllib.request.urlopen(probe, timeout=1) as answer:
        assert answer.status == 200
    signs.ready = True
    with urllib.request.urlopen(ready, timeout=1) as answer:
        assert answer.read() == b"ok"
