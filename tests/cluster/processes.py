"""Finds and kills the node's processes from the host.

Each process of the node has an environment variable with the path of the state folder, so no PID files are
needed. The node's first process is PID 1 of a PID namespace. When it ends, the kernel kills all other
processes of the namespace.
"""

import os
import signal
from contextlib import suppress
from pathlib import Path

from tests.cluster.shell import wait_until

MARK = "RFT_TEST_CLUSTER_STATE"


def mark(state: Path) -> dict[str, str]:
    """Return the environment variable that identifies a node's processes."""
    return {MARK: str(state)}


def node_processes(state: Path) -> list[int]:
    """Return the PIDs of all processes whose environment has the variable ``MARK`` set to ``state``."""
    wanted = f"{MARK}={state}".encode()
    return [pid for pid in all_processes() if wanted in _read(pid, "environ").split(b"\0")]


def first_process(state: Path) -> int | None:
    """Return the PID of the node's first process, as seen by the host. None if the node does not run."""
    for pid in node_processes(state):
        if pid_in_own_namespace(pid) == 1:
            return pid
    return None


def end_node(state: Path) -> None:
    """Kill the node's processes. The kernel then removes the node's namespaces, mounts and links.

    Raises:
        ClusterError: processes still exist after 30 seconds.
    """
    for pid in sorted(node_processes(state), key=lambda pid: pid_in_own_namespace(pid) != 1):
        with suppress(ProcessLookupError):  # killed by the kernel with PID 1
            os.kill(pid, signal.SIGKILL)
    wait_until("end of the node's processes", 30, lambda: not node_processes(state))


def all_processes() -> list[int]:
    """Return the PIDs of all processes that this process can see."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def pid_in_own_namespace(pid: int) -> int | None:
    """Return the PID of a process within its own PID namespace.

    Return None if the process has ended, or is in the PID namespace of this process.
    """
    for line in _read(pid, "status").splitlines():
        if line.startswith(b"NSpid:"):
            numbers = line.split()[1:]
            return int(numbers[-1]) if len(numbers) > 1 else None
    return None


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""  # the process has ended, or belongs to another user and so not to the node
