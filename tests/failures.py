"""Writes the names of failed tests into the file in ``RFT_FAILED_TESTS``. `make test` reads this file."""

import os
import shlex
from collections.abc import Iterable
from pathlib import Path

import pytest

VARIABLE = "RFT_FAILED_TESTS"


def names(reports: Iterable[pytest.TestReport | pytest.CollectReport]) -> list[str]:
    """Return the names of the failed tests, without duplicates, quoted for the shell.

    If a test file cannot be imported, its path is the name.
    """
    return list(dict.fromkeys(shlex.quote(report.nodeid) for report in reports))


def write(terminal: pytest.TerminalReporter) -> None:
    """Append the failed tests to the file, if ``RFT_FAILED_TESTS`` is set."""
    path = os.environ.get(VARIABLE)
    if not path:
        return
    found = names([*terminal.stats.get("failed", []), *terminal.stats.get("error", [])])
    with Path(path).open("a", encoding="utf-8") as file:
        file.writelines(f"{name}\n" for name in found)
