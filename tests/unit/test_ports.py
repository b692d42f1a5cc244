"""A test chooses a port for its server. The kernel gives no client on this machine this port as its own."""

import socket

from tests import ports


def test_no_client_gets_the_port_of_a_server() -> None:
    first, last = (int(word) for word in ports.RANGE_OF_CLIENTS.read_text().split())
    given = ports.free_ports(20)
    assert len(set(given)) == 20
    assert not any(first <= port <= last for port in given)
    with (
        socket.create_server(("127.0.0.1", given[0])) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        assert first <= client.getsockname()[1] <= last


def test_a_port_in_use_at_one_address_is_not_given() -> None:
    with socket.socket() as used:
        used.bind(("127.0.0.7", 0))
        assert not ports._is_free(used.getsockname()[1])


def test_a_machine_whose_clients_get_every_port_still_has_ports_for_servers() -> None:
    assert ports.candidates(1024, 65535) == list(range(ports.LOWEST, ports.HIGHEST + 1))
    assert ports.candidates(32768, 60999)[-1] == 65535
    assert 32768 not in ports.candidates(32768, 60999)
