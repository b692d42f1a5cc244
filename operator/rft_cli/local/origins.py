"""Compares the addresses of servers, to decide which servers may get a credential of the user.

Two addresses are compared by their origins: scheme, host and port. Libraries parse unusual addresses in
different ways. So an address in an unusual form has no origin here, and equals no other address.
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
    """The address of a server without a path: its scheme, host and port."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.scheme}://{self.place}"

    @property
    def place(self) -> str:
        """The host, followed by ``:PORT`` if the port is not the default port of the scheme."""
        return self.host if self.port == _PORTS[self.scheme] else f"{self.host}:{self.port}"


def origin_of(address: str) -> Origin | None:
    """Return the scheme, host and port of an HTTP address such as ``https://host:port/path``.

    Return None for any other text. An address with a user name is an example: libraries parse such addresses
    in different ways.
    """
    found = _PLAIN.fullmatch(address)
    if found is None or not address.isprintable():
        return None
    scheme = found["scheme"].lower()
    return Origin(scheme, found["host"].lower(), int(found["port"] or _PORTS[scheme]))


class Permission(NamedTuple):
    """One value of the option ``--send-token-to``: a server that may get a credential of the user.

    ``text`` is HOST, HOST:PORT or an address.
    """

    text: str

    def covers(self, address: str) -> bool:
        """Return whether the server at ``address`` may get a credential because ``text`` names it.

        An address that ``origin_of`` cannot parse must be the same as ``text``.
        """
        origin = origin_of(address)
        if origin is None or address == self.text:
            return address == self.text
        if "://" in self.text:
            return origin_of(self.text) == origin
        return self.text.lower() in (origin.host, f"{origin.host}:{origin.port}")

    @property
    def is_readable(self) -> bool:
        """Whether ``text`` is an address, or can be parsed as HOST or HOST:PORT."""
        return "://" in self.text or _HOST.fullmatch(self.text) is not None


def shown(text: str) -> str:
    """Return ``text`` with control characters replaced by escape codes, so that a terminal does not interpret
    them.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
