"""The API server and its etcd end when the process that started them ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.shell import wait_until
from tests.modern.server import Server

pytestmark = [pytest.mark.modern, pytest.mark.timeout(90, func_only=True)]


def test_a_killed_run_leaves_no_process(server: Server, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.modern", "run"],
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        cwd=Path(__file__).parents[2],
    ) as run:
        try:
            assert run.stdout is not None
            assert run.stdout.readline().startswith(b"https://127.0.0.1:")
            children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
            assert len(children) == 2
        finally:
            run.send_signal(signal.SIGKILL)
    wait_until("end of both", 20, lambda: not any(_runs(pid) for pid in children))


def _runs(pid: str) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()
