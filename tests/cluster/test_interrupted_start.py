"""An interrupted `up` leaves nothing: each case starts a second cluster of its own and breaks it off."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.layout import Layout, default_layout
from tests.cluster.leftovers import differences, snapshot
from tests.cluster.node_cluster import NodeCluster
from tests.cluster.processes import first_process, node_processes
from tests.cluster.provider import choose_provider
from tests.cluster.shell import wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Layout]:
    monkeypatch.setenv("RFT_CLUSTER_STATE", str(tmp_path / "cluster"))
    second = default_layout()
    if not isinstance(choose_provider(second), NodeCluster):
        pytest.skip("this machine's cluster is not a node of our own")
    yield second
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
def test_a_signal_to_up_removes_what_it_had_made(
    layout: Layout, number: signal.Signals, moment: Callable[[Layout], bool]
) -> None:
    before = snapshot(layout)
    starting = start()
    wait_until(moment.__name__, 60, lambda: moment(layout))
    starting.send_signal(number)
    assert starting.wait(60) != 0
    assert differences(before, snapshot(layout)) == []


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_up_leaves_no_process_and_down_removes_the_rest(
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


def test_up_starts_anew_after_the_node_was_killed_and_down_leaves_nothing(layout: Layout) -> None:
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
