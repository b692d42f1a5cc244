"""Ports for the servers that tests start.

The kernel gives clients their ports from a range, often 32768 to 60999. Any connection of this machine may
take a port of that range between the choice and the bind. So servers get ports outside of it.
"""

import random
import socket
from pathlib import Path

RANGE_OF_CLIENTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
LOWEST, HIGHEST = 12000, 65535
"""Below are the fixed ports of Kubernetes' components."""
_given: set[int] = set()


def candidates(first: int, last: int) -> list[int]:
    """Return the ports for servers where clients get ``first`` to ``last``; all if that leaves none."""
    everything = range(LOWEST, HIGHEST + 1)
    return [port for port in everything if not first <= port <= last] or list(everything)


def free_port() -> int:
    """Return a port on which nothing listens at any address. No process gets the same one twice.

    Raises:
        OSError: none was found in 1000 tries.
    """
    first, last = (int(word) for word in RANGE_OF_CLIENTS.read_text().split())
    left = list(set(candidates(first, last)) - _given)
    # Not the tests' seeded generator: two processes of this machine must not try the same ports.
    for port in random.SystemRandom().sample(left, min(1000, len(left))):
        if _is_free(port):
            _given.add(port)
            return port
    raise OSError(f"no port for a server is free; clients get {first} to {last} ({RANGE_OF_CLIENTS})")


def free_ports(count: int) -> list[int]:
    """Return that many ports, each as ``free_port`` does."""
    return [free_port() for _ in range(count)]


def _is_free(port: int) -> bool:
    """Return whether a server may bind the port on all addresses."""
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
