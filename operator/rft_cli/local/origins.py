"""Compares addresses of servers, to decide which servers may get a credential of the user.

An address is compared by its origin: its scheme, host and port. Libraries parse unusual addresses in
different ways. So an address in an unusual form has no origin, and equals no other address.
"""

import re
from typing import NamedTuple

_PLAIN = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?(?:[/?#].*)?",
    re.IGNORECASE,
)
_HOST = re.compile(r"(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?P<port>:[0-9]{1,5})?", re.IGNORECASE)
_PORTS = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """Scheme, host and port of a server."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.scheme}://{self.place}"

    @property
    def place(self) -> str:
        """The host, with the port if it is not the default port of the scheme."""
        return self.host if self.port == _PORTS[self.scheme] else f"{self.host}:{self.port}"


def origin_of(address: str) -> Origin | None:
    """Return the scheme, host and port of an address such as ``https://host:port/path``.

    Return None for any other text, also for addresses that libraries parse in different ways, such as one
    with a user name.
    """
    found = _PLAIN.fullmatch(address)
    if found is None or not address.isprintable():
        return None
    scheme = found["scheme"].lower()
    return Origin(scheme, found["host"].lower(), int(found["port"] or _PORTS[scheme]))


class Permission(NamedTuple):
    """One value of ``--send-token-to``: HOST, HOST:PORT or an address. It names the servers that may get a
    token.
    """

    text: str

    def covers(self, address: str) -> bool:
        """Return whether this value of ``--send-token-to`` names the server at ``address``.

        If ``origin_of(address)`` is None, the address must be the same text as this value.
        """
        origin = origin_of(address)
        if origin is None or address == self.text:
            return address == self.text
        if "://" in self.text:
            return origin_of(self.text) == origin
        return self.text.lower() in (origin.host, f"{origin.host}:{origin.port}")

    @property
    def is_readable(self) -> bool:
        """Whether the text can be parsed as the name of a server."""
        return "://" in self.text or _HOST.fullmatch(self.text) is not None


def shown(text: str) -> str:
    """Return a text with control characters as escape codes, so that a terminal does not interpret them."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
