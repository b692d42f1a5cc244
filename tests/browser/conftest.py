"""Skips the browser tests if this machine has no browser, and prints the reason."""

import pytest

from tests.browser.chromium import program


@pytest.fixture(autouse=True)
def _browser() -> None:
    if program() is None:
        pytest.skip("no Chromium: install Debian's package chromium")
