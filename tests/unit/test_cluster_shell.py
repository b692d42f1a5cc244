"""If a command of the test cluster is interrupted, all processes that the command started end too."""

import signal
import subprocess
import sys
from pathlib import Path

from tests.waiting import wait_until

CALLER = """
import signal, sys
from tests.cluster.shell import run
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
run("sh", "-c", "sleep 300 & echo $! > {file}; wait")
"""


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_an_interrupted_command_ends_with_all_its_processes(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    root = Path(__file__).parents[2]
    caller = subprocess.Popen([sys.executable, "-c", CALLER.format(file=file)], cwd=root)
    number = int(wait_until("its child", lambda: file.read_text().strip() if file.exists() else None))
    caller.send_signal(signal.SIGTERM)
    assert caller.wait(20) == 3
    wait_until("the child process has ended", lambda: not _alive(number))
