"""`make test` prints the failed tests at its end. It reads their names from a file that pytest writes."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = """
import pytest


@pytest.fixture
def broken():
    raise OSError


@pytest.mark.parametrize("value", ["it's", "two words"])
def test_fails(value):
    assert not value


def test_passes():
    pass


def test_errs(broken):
    pass


def test_fails_and_errs_at_its_end(request):
    def end():
        raise OSError

    request.addfinalizer(end)
    raise ValueError
"""
HOOK = """
from tests import failures


def pytest_terminal_summary(terminalreporter):
    failures.write(terminalreporter)
"""


def failed(folder: Path, *arguments: str) -> list[str]:
    """Run pytest in a folder. Return the lines of the file in which pytest lists the failed tests."""
    left = folder / "failed"
    environment = os.environ | {"RFT_FAILED_TESTS": str(left), "PYTHONPATH": str(ROOT)}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # the plugins take most of the time of a start
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder)]
    subprocess.run([*command, *arguments], cwd=folder, env=environment, capture_output=True, check=False)
    return left.read_text().splitlines()


def test_each_failed_test_is_listed_once_and_quoted_for_the_shell(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(HOOK)
    (tmp_path / "test_some.py").write_text(TESTS)
    (tmp_path / "test_unreadable.py").write_text("import nothing_of_this_name\n")
    assert sorted(failed(tmp_path, "--continue-on-collection-errors")) == [
        "'test_some.py::test_fails[it'\"'\"'s]'",
        "'test_some.py::test_fails[two words]'",
        "test_some.py::test_errs",
        "test_some.py::test_fails_and_errs_at_its_end",
        "test_unreadable.py",
    ]
