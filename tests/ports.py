"""Ports for the servers that tests start.

The kernel gives each client a port from a range, often 32768 to 60999. If a test chose a port in this range,
a client on the machine could get this port before the server uses it. So servers get ports outside this
range.
"""

import random
import socket
from pathlib import Path

RANGE_OF_CLIENTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
LOWEST, HIGHEST = 12000, 65535
"""Ports of servers. Kubernetes' components have fixed ports below 12000."""
_given: set[int] = set()


def candidates(first: int, last: int) -> list[int]:
    """Return the ports outside the clients' range ``first`` to ``last``, or all ports if there are none."""
    everything = range(LOWEST, HIGHEST + 1)
    return [port for port in everything if not first <= port <= last] or list(everything)


def free_port() -> int:
    """Return a port at which no process listens, at any address.

    Each call returns a port that was not returned before.

    Raises:
        OSError: none of 1000 tried ports was free.
    """
    first, last = (int(word) for word in RANGE_OF_CLIENTS.read_text().split())
    left = list(set(candidates(first, last)) - _given)
    # A generator without a seed, because two test processes of this machine must not try the same ports.
    for port in random.SystemRandom().sample(left, min(1000, len(left))):
        if _is_free(port):
            _given.add(port)
            return port
    raise OSError(f"no port is free for a server; clients use {first} to {last} ({RANGE_OF_CLIENTS})")


def free_ports(count: int) -> list[int]:
    """Return ``count`` ports like those of ``free_port``."""
    return [free_port() for _ in range(count)]


def _is_free(port: int) -> bool:
    """Return whether a server may bind the port at all addresses."""
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
