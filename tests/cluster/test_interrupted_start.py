"""After an interrupted `up` nothing remains. Each test starts a second cluster and interrupts the start."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.kind import KindCluster
from tests.cluster.layout import Layout, default_layout
from tests.cluster.leftovers import differences, snapshot
from tests.cluster.processes import first_process, node_processes
from tests.cluster.provider import WANTED, choose_provider
from tests.cluster.shell import run, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.long]

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """Layout of a second cluster. The first cluster is the one on which the tests run."""
    if "RFT_TEST_KUBECONFIG" in os.environ:
        pytest.skip("the tests do not start the cluster of RFT_TEST_KUBECONFIG")
    monkeypatch.setenv("RFT_CLUSTER_STATE", str(tmp_path / "cluster"))
    return default_layout()


@pytest.fixture
def layout(elsewhere: Layout, monkeypatch: pytest.MonkeyPatch) -> Iterator[Layout]:
    """Layout of a node on this machine, with the binaries in ``KUBEBUILDER_ASSETS`` if it is set."""
    if isinstance(choose_provider(elsewhere), KindCluster):
        if "KUBEBUILDER_ASSETS" not in os.environ:
            pytest.skip("KUBEBUILDER_ASSETS is not set, so there are no binaries for a node")
        monkeypatch.setenv(WANTED, "node")
    yield elsewhere
    command("down")


@pytest.fixture
def kind_layout(elsewhere: Layout) -> Iterator[Layout]:
    """Layout of a kind cluster."""
    if not isinstance(choose_provider(elsewhere), KindCluster):
        pytest.skip("this machine's test cluster is not a kind cluster")
    yield elsewhere
    command("down")


def command(*words: str) -> int:
    return subprocess.run([sys.executable, "-m", "tests.cluster", *words], cwd=REPOSITORY).returncode


def start() -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-m", "tests.cluster", "up"], cwd=REPOSITORY)


def has_record(layout: Layout) -> bool:
    return layout.record.exists()


def has_first_process(layout: Layout) -> bool:
    return first_process(layout.state) is not None


def serves(layout: Layout) -> bool:
    return (layout.logs / "audit.log").exists()


MOMENTS = [has_record, has_first_process, serves]


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_up_removes_everything_that_it_created(
    layout: Layout, number: signal.Signals, moment: Callable[[Layout], bool]
) -> None:
    before = snapshot(layout)
    starting = start()
    wait_until(moment.__name__, 60, lambda: moment(layout))
    starting.send_signal(number)
    assert starting.wait(60) != 0
    assert differences(before, snapshot(layout)) == []


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_up_leaves_no_process_and_down_removes_its_files(
    layout: Layout, moment: Callable[[Layout], bool]
) -> None:
    before = snapshot(layout)
    starting = start()
    wait_until(moment.__name__, 60, lambda: moment(layout))
    starting.kill()
    starting.wait()
    wait_until("end of the node", 30, lambda: not node_processes(layout.state))
    assert command("down") == 0
    assert differences(before, snapshot(layout)) == []


def test_up_starts_a_new_node_after_the_old_one_was_killed_and_down_removes_it(layout: Layout) -> None:
    before = snapshot(layout)
    assert command("up") == 0
    first = first_process(layout.state)
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert command("status") == 1
    assert command("up") == 0
    assert command("up") == 0
    assert command("status") == 0
    assert command("down") == 0
    assert differences(before, snapshot(layout)) == []


def containers(layout: Layout) -> list[str]:
    label = f"label=io.x-k8s.kind.cluster={layout.name}"
    return run("docker", "ps", "--all", "--quiet", "--filter", label).split()


def test_a_signal_while_kind_creates_its_nodes_leaves_no_container(kind_layout: Layout) -> None:
    starting = start()
    wait_until("containers", 60, lambda: bool(containers(kind_layout)))
    starting.send_signal(signal.SIGTERM)
    assert starting.wait(120) != 0
    assert containers(kind_layout) == []
    assert not kind_layout.choice.exists()


def test_down_removes_what_a_killed_start_of_kind_left(kind_layout: Layout) -> None:
    starting = start()
    wait_until("containers", 60, lambda: bool(containers(kind_layout)))
    starting.kill()
    starting.wait()
    assert command("down") == 0
    # The kind program survives the kill, and runs until its nodes are gone.
    wait_until("end of the containers", 60, lambda: command("down") == 0 and not containers(kind_layout))
