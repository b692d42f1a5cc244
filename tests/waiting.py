"""Waits until a condition is true, for example in a cluster."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(what: str, probe: Callable[[], T | None], seconds: float = 30.0, poll: float = 0.2) -> T:
    """Return the first true result of ``probe``. After ``seconds``, raise AssertionError with ``what``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = probe()
        if found:
            return found
        time.sleep(poll)
    raise AssertionError(f"{what}: not within {seconds:.0f} s")
