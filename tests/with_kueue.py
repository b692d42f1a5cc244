"""Runs all tests that need Kueue one after another, so that they share one installation of Kueue.

Kueue is installed for the first of these tests. It is removed after the last one, because the other tests
need a cluster without Kueue: its webhook is called for every new Job.
"""

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, TypeVar

import pytest

ROOT = Path(__file__).parents[1]
CHART, IMAGE, ARCHIVE = "RFT_KUEUE_CHART", "RFT_KUEUE_IMAGE", "RFT_KUEUE_ARCHIVE"


class Item(Protocol):
    """The properties of a ``pytest.Item`` that decide its place in the order of the tests."""

    @property
    def path(self) -> Path:
        """The test's module."""

    def get_closest_marker(self, name: str) -> object | None:
        """Return the test's marker of this name, or None if it has none."""


T = TypeVar("T", bound=Item)


class Removable(Protocol):
    """An installation of Kueue."""

    def remove(self) -> None:
        """Uninstall Kueue, and wait until its webhook and its CRDs are gone."""


INSTALLED = pytest.StashKey[Removable]()
"""Key in ``pytest.Config.stash``: the installation of Kueue, while this session has one."""
FAILED = pytest.StashKey[str]()
"""Key in ``pytest.Config.stash``: why Kueue could not be installed. Absent if no installation has failed."""
_LOADING = pytest.StashKey["subprocess.Popen[str]"]()


def needs_kueue(item: Item | None) -> bool:
    """Return whether a test has the marker ``kueue``. ``item`` is None if there is no test."""
    return item is not None and item.get_closest_marker("kueue") is not None


def together(items: Iterable[T]) -> list[T]:
    """Return the tests in a new order: all tests with Kueue follow one another, after the other e2e tests.

    The e2e tests use the installed operator, and the integration tests stop it. So the integration tests with
    Kueue cannot be before an e2e test. The e2e test of the operator's rights uses no operator. It reads what
    the operator requested during the other tests, so it is after the tests with Kueue.
    """
    found = list(items)
    others = [item for item in found if not needs_kueue(item)]
    ends = [n for n, item in enumerate(others, 1) if item.get_closest_marker("e2e") and not _on_rights(item)]
    first, rest = (others[: ends[-1]], others[ends[-1] :]) if ends else ([], others)
    on_rights = [item for item in first if _on_rights(item)]
    first = [item for item in first if not _on_rights(item)]
    return [*first, *filter(needs_kueue, found), *on_rights, *rest]


def _on_rights(item: Item) -> bool:
    return item.path.name == "test_rights.py"


def start_loading(config: pytest.Config) -> None:
    """Start to load Kueue's image into the nodes. ``wait_for_image`` waits until it is loaded."""
    chart, archive = os.environ.get(CHART), os.environ.get(ARCHIVE)
    if not chart or not archive:
        return
    command = [sys.executable, "-m", "tests.cluster", "load-image", str(Path(archive).absolute())]
    nothing = subprocess.DEVNULL
    config.stash[_LOADING] = subprocess.Popen(
        command, cwd=ROOT, stdin=nothing, stdout=nothing, stderr=subprocess.PIPE, text=True
    )
    config.add_cleanup(lambda: _stop_loading(config))


def wait_for_image(config: pytest.Config) -> None:
    """Wait until Kueue's image is loaded. Raises AssertionError with the command's output if it failed."""
    process = config.stash.get(_LOADING, None)
    if process is None:
        return
    errors = process.communicate()[1]
    del config.stash[_LOADING]
    assert process.returncode == 0, f"Kueue's image was not loaded: {errors}"


def _stop_loading(config: pytest.Config) -> None:
    process = config.stash.get(_LOADING, None)
    if process is not None:
        process.terminate()
        process.communicate()


def remove(config: pytest.Config) -> None:
    """Remove Kueue if this session has installed it."""
    release = config.stash.get(INSTALLED, None)
    if release is not None:
        del config.stash[INSTALLED]
        release.remove()
