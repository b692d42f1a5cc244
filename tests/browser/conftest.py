"""Skips the browser tests if this machine has no browser, and prints the reason."""

import pytest

from tests.browser.chromium import program


@pytest.fixture(scope="session", autouse=True)
def _browser() -> None:
    # Of the session, so that it runs before the fixtures that open a page.
    if program() is None:
        pytest.skip("no Chromium: install Debian's package chromium")
