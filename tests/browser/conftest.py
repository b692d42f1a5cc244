"""Skips these tests where there is no browser, and says so."""

import pytest

from tests.browser.chromium import program


@pytest.fixture(autouse=True)
def _browser() -> None:
    if program() is None:
        pytest.skip("no Chromium: install Debian's package chromium")
