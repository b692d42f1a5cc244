"""Finding and ending the node's processes, as the host sees them.

There are no pid files to go stale: a node's processes carry the state folder's path in an
environment variable, and the one that is PID 1 in its namespace takes all others with it.
"""

import os
import signal
from contextlib import suppress
from pathlib import Path

from tests.cluster.shell import wait_until

MARK = "RFT_TEST_CLUSTER_STATE"


def mark(state: Path) -> dict[str, str]:
    """The environment variable that a node's processes carry."""
    return {MARK: str(state)}


def node_processes(state: Path) -> list[int]:
    """PIDs of all processes that carry this state folder's mark."""
    wanted = f"{MARK}={state}".encode()
    return [pid for pid in all_processes() if wanted in _read(pid, "environ").split(b"\0")]


def first_process(state: Path) -> int | None:
    """PID, on the host, of the process that is PID 1 inside the node, if the node is alive."""
    for pid in node_processes(state):
        if pid_in_own_namespace(pid) == 1:
            return pid
    return None


def end_node(state: Path) -> None:
    """Kill the node: what it holds lives in its namespaces and ends with them.

    Raises:
        ClusterError: processes outlived the kill by half a minute.
    """
    for pid in sorted(node_processes(state), key=lambda pid: pid_in_own_namespace(pid) != 1):
        with suppress(ProcessLookupError):  # its namespace's first process took it along
            os.kill(pid, signal.SIGKILL)
    wait_until("end of the node's processes", 30, lambda: not node_processes(state))


def all_processes() -> list[int]:
    """PIDs of every process that this one can see."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def pid_in_own_namespace(pid: int) -> int | None:
    """The PID that a process has in the innermost PID namespace, or None once it is gone."""
    for line in _read(pid, "status").splitlines():
        if line.startswith(b"NSpid:"):
            numbers = line.split()[1:]
            return int(numbers[-1]) if len(numbers) > 1 else None
    return None


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""  # it has just ended, or it is not ours to read, hence not ours
