"""Opens the sockets on which the operator and the webhook listen, for IPv4 and IPv6."""

import errno
import socket
from contextlib import suppress
from ipaddress import IPv6Address, ip_address

EVERYWHERE = "::"
"""An IP address to listen on: it stands for all IPv6 and IPv4 addresses of this machine."""
BACKLOG = 128


class CannotListen(OSError):
    """A server cannot listen on its port. The message names the setting, the port and the cause."""


def listening(host: str, port: int, setting: str = "the port", backlog: int = BACKLOG) -> socket.socket:
    """Return a socket that listens on an IP address and a port.

    - ``host``: the IP address. With ``EVERYWHERE`` the socket listens on all addresses, IPv6 and IPv4. On a
      machine without IPv6, it listens on all IPv4 addresses.
    - ``setting``: the name of the setting with the port, for an error message.
    - ``backlog``: the largest number of connections that wait in the kernel until they are accepted.

    Raises:
        CannotListen: for example if another program listens on the port, or this machine does not have the
            address.
    """
    try:
        if host == EVERYWHERE:
            return _everywhere(port, backlog)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=backlog)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            why = "another program listens on this port; set another port, or end that program"
        else:
            why = f"{error.strerror}"
        raise CannotListen(f"{setting}: cannot listen on port {port}: {why}") from error


def _everywhere(port: int, backlog: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        # A kernel may support IPv6 although the machine has no IPv6 address.
        with suppress(OSError):
            return socket.create_server(
                (EVERYWHERE, port), family=socket.AF_INET6, backlog=backlog, dualstack_ipv6=True
            )
    return socket.create_server(("", port), backlog=backlog)


def peer_of(address: str) -> str:
    """Return the IP address of a client. An IPv4 address in IPv6 form, such as ``::ffff:10.0.0.1``, is
    returned in IPv4 form.
    """
    with suppress(ValueError):
        found = ip_address(address)
        if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
    return address
