"""The order of the tests with Kueue, and when the installation that they share is removed."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import pytest_runtest_teardown
from tests.with_kueue import ARCHIVE, CHART, INSTALLED, start_loading, together, wait_for_image


@dataclass
class SessionConfig:
    """Replaces ``pytest.Config``, which all tests of a session share."""

    stash: pytest.Stash = field(default_factory=pytest.Stash)
    cleanups: list[Any] = field(default_factory=list)

    def add_cleanup(self, function: Any) -> None:
        self.cleanups.append(function)


@dataclass(frozen=True)
class MarkedTest:
    """Replaces ``pytest.Item``: a test with its module, its markers and the configuration of its session."""

    path: Path
    markers: tuple[str, ...]
    config: Any = None

    def get_closest_marker(self, name: str) -> object | None:
        return name if name in self.markers else None


@dataclass
class CountedRelease:
    """Replaces the installation of Kueue, and counts how often it is removed."""

    removed: int = 0

    def remove(self) -> None:
        self.removed += 1


def case(name: str, *markers: str) -> MarkedTest:
    return MarkedTest(Path("tests") / name, markers)


OBSTACLES = case("e2e/test_obstacles.py", "e2e")
TRAINING = case("e2e/test_preempted_training.py", "e2e", "kueue")
REFUSED = case("e2e/test_rights.py", "e2e")
STALL = case("e2e/test_stall.py", "e2e")
DRIFT = case("integration/test_drift.py", "cluster")
QUEUES = case("integration/test_kueue.py", "cluster", "kueue")
CRD = case("integration/test_crd.py", "cluster")
GRANTED = case("integration/test_rights.py", "cluster")


def test_tests_with_kueue_are_behind_the_e2e_tests_and_before_the_test_of_refused_rights() -> None:
    alphabetical = [OBSTACLES, TRAINING, REFUSED, STALL, CRD, DRIFT, QUEUES, GRANTED]
    expected = [OBSTACLES, STALL, TRAINING, QUEUES, REFUSED, CRD, DRIFT, GRANTED]
    assert together(alphabetical) == expected


@pytest.mark.parametrize(
    "chosen", [[QUEUES], [TRAINING], [TRAINING, QUEUES], [OBSTACLES, STALL], [CRD, DRIFT], [REFUSED], []]
)
def test_a_selection_without_the_other_kind_keeps_its_order(chosen: list[MarkedTest]) -> None:
    assert together(chosen) == chosen


def torn_down(config: SessionConfig, following: MarkedTest | None) -> None:
    """Run the hook that pytest calls at the end of a test. ``following`` is the next test."""
    item: Any = MarkedTest(QUEUES.path, QUEUES.markers, config)
    other: Any = following
    steps: Iterator[None] = pytest_runtest_teardown(item, other)
    next(steps)
    assert list(steps) == []


@pytest.mark.parametrize("last", [CRD, None])
def test_the_installation_is_removed_once_after_the_last_test_with_kueue(last: MarkedTest | None) -> None:
    config, release = SessionConfig(), CountedRelease()
    config.stash[INSTALLED] = release
    torn_down(config, TRAINING)
    torn_down(config, QUEUES)
    assert release.removed == 0
    torn_down(config, last)
    torn_down(config, last)
    assert release.removed == 1
    assert INSTALLED not in config.stash


def test_an_image_that_cannot_be_loaded_fails_the_test_that_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CHART, "kueue.tgz")
    monkeypatch.setenv(ARCHIVE, str(tmp_path / "kueue.tar"))
    monkeypatch.setenv("RFT_TEST_KUBECONFIG", str(tmp_path / "kubeconfig"))
    config: Any = SessionConfig()
    start_loading(config)
    with pytest.raises(AssertionError, match=r"(?s)image was not loaded: .*cannot load images into"):
        wait_for_image(config)
    wait_for_image(config)
    for cleanup in config.cleanups:
        cleanup()


def test_no_image_is_loaded_without_a_chart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CHART, raising=False)
    monkeypatch.setenv(ARCHIVE, str(tmp_path / "kueue.tar"))
    config: Any = SessionConfig()
    start_loading(config)
    assert config.cleanups == []
