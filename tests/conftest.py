"""What holds for all tests: the summary says how many cases each gate has judged, a file what has failed."""

from collections import Counter

import pytest
from hypothesis import settings

from tests import failures
from tests.tables import TABLES

# How long one example takes says more of what else the machine does than of the code. The examples are the
# same each time, so a run that is red for one is red for all; --hypothesis-profile=search looks for others.
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None, max_examples=1000)
settings.load_profile("same")

_JUDGED = pytest.StashKey[Counter[str]]()


@pytest.fixture(scope="session")
def judged(request: pytest.FixtureRequest) -> "Counter[str]":
    """Counts the manifests that each gate has judged."""
    return request.config.stash.setdefault(_JUDGED, Counter())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the counts, and write the names of what has failed."""
    failures.write(terminalreporter)
    for table in config.stash.get(TABLES, {}).values():
        terminalreporter.section(table.title)
        for line in table.lines():
            terminalreporter.write_line(line)
    counts = config.stash.get(_JUDGED, Counter[str]())
    if counts:
        terminalreporter.section("manifests judged by each gate")
        for gate, count in sorted(counts.items()):
            terminalreporter.write_line(f"{count:6d}  {gate}")
