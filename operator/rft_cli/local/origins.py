"""Compares addresses of servers, to decide which of them may be sent a credential of the user.

Libraries read unusual addresses in different ways. So an address that is not written plainly has no origin,
and equals no other one.
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
        """The host, and the port unless it is that of the scheme."""
        return self.host if self.port == _PORTS[self.scheme] else f"{self.host}:{self.port}"


def origin_of(address: str) -> Origin | None:
    """Return the origin of a plainly written http or https address, or None for any other text."""
    found = _PLAIN.fullmatch(address)
    if found is None or not address.isprintable():
        return None
    scheme = found["scheme"].lower()
    return Origin(scheme, found["host"].lower(), int(found["port"] or _PORTS[scheme]))


class Permission(NamedTuple):
    """The servers that one value of ``--send-token-to`` names: HOST, HOST:PORT or an address."""

    text: str

    def covers(self, address: str) -> bool:
        """Whether the server at ``address`` is one of them. An address that is not plain must be the same
        text.
        """
        origin = origin_of(address)
        if origin is None or address == self.text:
            return address == self.text
        if "://" in self.text:
            return origin_of(self.text) == origin
        return self.text.lower() in (origin.host, f"{origin.host}:{origin.port}")

    @property
    def is_readable(self) -> bool:
        """Whether the text can name a server at all."""
        return "://" in self.text or _HOST.fullmatch(self.text) is not None


def shown(text: str) -> str:
    """Return a text of a manifest without characters that a terminal obeys."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
