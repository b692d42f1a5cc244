"""A unit test that takes too long fails, so that all of them stay quick enough to run after each change."""

import os
from collections.abc import Generator

import pytest
from hypothesis import given, strategies

LIMIT_SECONDS = 2.0
"""CPU time of one test, of its threads and of the programs that it waited for.

Unlike the time on the clock it depends little on what else the machine does.
"""


@pytest.fixture(scope="session", autouse=True)
def _constants_collected() -> None:
    """Let Hypothesis collect the constants of all modules, which takes seconds once in a fresh clone.

    Otherwise this is part of the first test that draws a value.
    """

    @given(strategies.integers(), strategies.text(), strategies.floats())
    def draw(_number: int, _text: str, _fraction: float) -> None:
        pass

    draw()


def _cpu_seconds() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Measure the test itself, without its fixtures."""
    before = _cpu_seconds()
    yield
    seconds = _cpu_seconds() - before
    if seconds > LIMIT_SECONDS:
        pytest.fail(
            f"took {seconds:.1f} s of CPU time; a unit test may take {LIMIT_SECONDS:g} s", pytrace=False
        )
