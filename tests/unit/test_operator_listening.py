"""The operator's servers listen on IPv4 and IPv6. If a port is in use, the error names the port's setting."""

import socket

import pytest
from prometheus_client import MetricsHandler

from rft_operator import __main__, threads
from rft_operator.listening import EVERYWHERE, CannotListen, listening, peer_of
from tests.ports import free_port


@pytest.mark.parametrize("client", ["127.0.0.1", "::1"])
def test_everywhere_takes_connections_over_ipv4_and_ipv6(client: str) -> None:
    if client == "::1" and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    with listening(EVERYWHERE, 0) as server:
        with socket.create_connection((client, server.getsockname()[1]), timeout=5):
            accepted, address = server.accept()
        accepted.close()
    assert peer_of(address[0]) == client


@pytest.mark.parametrize("client", ["127.0.0.1", "::1"])
def test_probes_and_metrics_are_answered_over_ipv4_and_ipv6(client: str) -> None:
    if client == "::1" and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    server = threads.serve(MetricsHandler, 0, "metrics-of-a-test")
    with socket.create_connection((client, server.server_address[1]), timeout=5) as connection:
        connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert connection.makefile("rb").readline().split()[1] == b"200"
    server.shutdown()
    server.server_close()


def test_without_ipv6_everywhere_means_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    with listening(EVERYWHERE, 0) as server:
        assert server.family == socket.AF_INET


def test_a_single_address_is_the_only_one() -> None:
    with listening("127.0.0.1", 0) as server:
        assert server.getsockname()[0] == "127.0.0.1"


def test_a_port_that_another_program_has_is_named_with_its_setting() -> None:
    with listening(EVERYWHERE, 0) as server:
        port = server.getsockname()[1]
        with pytest.raises(
            CannotListen, match=f"RFT_HEALTH_PORT: cannot listen on port {port}: another program"
        ):
            listening(EVERYWHERE, port, "RFT_HEALTH_PORT")


def test_the_operator_ends_with_a_sentence_where_its_port_is_taken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RFT_TRAINER_IMAGE", "trainer:1")
    monkeypatch.setenv("RFT_HEALTH_PORT", str(free_port()))
    with listening(EVERYWHERE, 0) as server:
        monkeypatch.setenv("RFT_METRICS_PORT", str(server.getsockname()[1]))
        assert __main__.main([]) == 2
    assert capsys.readouterr().err.startswith("error: RFT_METRICS_PORT: cannot listen")


def test_addresses_of_clients_are_the_same_over_both() -> None:
    assert peer_of("::ffff:10.0.0.7") == "10.0.0.7"
    assert peer_of("fd00::7") == "fd00::7"
    assert peer_of("10.0.0.7") == "10.0.0.7"
