"""Fails each unit test that uses more than 2 s of CPU time, so that all unit tests together stay fast."""

import os
from collections.abc import Generator

import pytest
from hypothesis import given, strategies

from tests.speed import slowness
from tests.unit.program_support import programs

LIMIT_SECONDS = 2.0
"""Limit for the CPU time of a unit test in seconds. The test's threads and child processes count too.

CPU time is limited, because other programs on the machine change it less than elapsed time. On a machine that
is slower than the reference of ``tests/speed.py``, the limit is higher in proportion.
"""
NOISE = 2.0
"""How many times the limit a test may use before it fails. A moment in which another program slows the core
may have ended before the machine's speed is measured.
"""


@pytest.fixture(scope="session", autouse=True)
def _constants_collected() -> None:
    """Make Hypothesis collect the constants of all modules before the first test.

    In a fresh clone this takes some seconds, once. Otherwise the first test that uses Hypothesis would need
    these seconds, and would exceed its limit of CPU time.
    """

    @given(strategies.integers(), strategies.text(), strategies.floats())
    def draw(_number: int, _text: str, _fraction: float) -> None:
        pass

    draw()


@pytest.fixture(scope="session", autouse=True)
def _programs_parsed() -> None:
    """Parse all modules before the first test, so that the parsing uses no CPU time of a test."""
    programs()


def _cpu_seconds() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Fail the test if it uses too much CPU time. The time of its fixtures does not count."""
    before = _cpu_seconds()
    yield
    seconds = _cpu_seconds() - before
    if seconds > LIMIT_SECONDS and seconds > (limit := LIMIT_SECONDS * NOISE * slowness()):
        pytest.fail(
            f"took {seconds:.1f} s of CPU time; the limit for a unit test is {LIMIT_SECONDS:g} s,"
            f" and with noise {limit:.1f} s on this machine now",
            pytrace=False,
        )
