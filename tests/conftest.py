"""Settings for all tests: their order, what the summary prints, and the file that names failed tests."""

from collections import Counter
from collections.abc import Generator

import pytest
from hypothesis import settings

from tests import failures, with_kueue
from tests.tables import TABLES

# No deadline: an example takes longer on a busy machine. Examples are the same in each run, so a failure is
# reproducible. --hypothesis-profile=search tries other examples.
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None, max_examples=1000)
settings.load_profile("same")

_JUDGED = pytest.StashKey[Counter[str]]()


@pytest.fixture(scope="session")
def judged(request: pytest.FixtureRequest) -> "Counter[str]":
    """How many manifests each gate has checked, by the gate's name. A gate accepts or refuses a manifest."""
    return request.config.stash.setdefault(_JUDGED, Counter())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests with Kueue one after another. They share one installation of Kueue."""
    items[:] = with_kueue.together(items)


def pytest_collection_finish(session: pytest.Session) -> None:
    """If any of the selected tests needs Kueue, start to load its image. The first tests run meanwhile."""
    if not session.config.option.collectonly and any(map(with_kueue.needs_kueue, session.items)):
        with_kueue.start_loading(session.config)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None]:
    """Remove Kueue before the next test that needs a cluster without Kueue, and after the last test."""
    try:
        yield
    finally:
        if not with_kueue.needs_kueue(nextitem):
            with_kueue.remove(item.config)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the tables of the tests, and the number of manifests that each gate has checked.

    Also write the names of the failed tests, by ``failures.write``.
    """
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
