"""Writes the names of failed tests into the file that ``RFT_FAILED_TESTS`` names; `make test` reads it."""

import os
import shlex
from collections.abc import Iterable
from pathlib import Path

import pytest

VARIABLE = "RFT_FAILED_TESTS"


def names(reports: Iterable[pytest.TestReport | pytest.CollectReport]) -> list[str]:
    """Return each failed test once, quoted for the shell; for an import error, the path of the file."""
    return list(dict.fromkeys(shlex.quote(report.nodeid) for report in reports))


def write(terminal: pytest.TerminalReporter) -> None:
    """Append the failed tests of this run to the file, if the variable names one."""
    path = os.environ.get(VARIABLE)
    if not path:
        return
    found = names([*terminal.stats.get("failed", []), *terminal.stats.get("error", [])])
    with Path(path).open("a", encoding="utf-8") as file:
        file.writelines(f"{name}\n" for name in found)
