"""Checks that ``down`` removes everything: compares the machine before ``up`` and after ``down``.

Other programs change the machine too. So only the kinds of things that a node creates are compared. Other
programs often start processes, but rarely create network namespaces. So network namespaces are compared, not
processes.
"""

import json
import shutil
from contextlib import suppress
from pathlib import Path

from tests.cluster.cgroups import hierarchies
from tests.cluster.layout import Layout
from tests.cluster.node import KERNEL_SETTINGS
from tests.cluster.processes import all_processes, node_processes
from tests.cluster.shell import ClusterError, run

Snapshot = dict[str, list[str]]

_SYSCTLS = (*KERNEL_SETTINGS, "net/ipv4/ip_forward", "net/ipv4/conf/all/route_localnet")
_NOT_FOR_THE_HOST = (
    "/opt/containerd",
    "/run/containerd",
    "/run/netns",
    "/var/lib/cni",
    "/var/lib/kubelet",
    "/var/log/containers",
    "/var/log/pods",
)
_TABLES = ("iptables-save", "ip6tables-save", "iptables-legacy-save")


def snapshot(layout: Layout) -> Snapshot:
    """Return everything on this machine that a node could have created, as lines of text for each kind."""
    sysctls = {name: Path("/proc/sys", name) for name in _SYSCTLS}
    return {
        "processes of the node": [str(pid) for pid in node_processes(layout.state)],
        "network namespaces": _network_namespaces(),
        "mounts": [path for path in _mount_points() if _is_of_a_node(path, layout)],
        "links": [path.name for path in Path("/sys/class/net").iterdir()],
        "routes": run("ip", "-4", "route", "show").splitlines(),
        "iptables rules": [rule for command in _TABLES for rule in _rules(command)],
        "cgroups": [str(path) for root in hierarchies() for path in root.iterdir() if path.is_dir()],
        "host folders": [path for path in _NOT_FOR_THE_HOST if Path(path).exists()],
        "kernel settings": [
            f"{name}={path.read_text().strip()}" for name, path in sysctls.items() if path.exists()
        ],
        "files": [str(path) for path in (layout.data, layout.volumes, layout.config) if path.exists()],
    }


def differences(before: Snapshot, after: Snapshot) -> list[str]:
    """Return one line for each entry of ``after`` that is not in ``before``."""
    return [
        f"{kind}: {entry}"
        for kind, entries in after.items()
        for entry in sorted(set(entries) - set(before.get(kind, [])))
    ]


def save_snapshot(layout: Layout) -> None:
    """Save a snapshot of this machine. Call this only when no node exists."""
    _file(layout).write_text(json.dumps(snapshot(layout), indent=2))


def compare_with_saved(layout: Layout) -> int:
    """Print everything that is new since the saved snapshot. Return 1 if anything is new, else 0.

    Raises:
        ClusterError: there is no snapshot, because ``up`` has never run.
    """
    if not _file(layout).exists():
        raise ClusterError("there is no snapshot to compare with: run `up` first")
    found = differences(json.loads(_file(layout).read_text()), snapshot(layout))
    print("\n".join(found) or "clean: nothing is left over")
    return 1 if found else 0


def _file(layout: Layout) -> Path:
    return layout.state / "before.json"


def _mount_points() -> list[str]:
    return [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]


def _is_of_a_node(mount_point: str, layout: Layout) -> bool:
    return mount_point.startswith((str(layout.state), "/proc/sys", "/sys/fs/cgroup", *_NOT_FOR_THE_HOST))


def _network_namespaces() -> list[str]:
    """Return the network namespaces of all processes. A node has its own network namespaces."""
    found = set()
    for pid in all_processes():
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            found.add(str(Path(f"/proc/{pid}/ns/net").readlink()))
    return sorted(found)


def _rules(command: str) -> list[str]:
    """Return the iptables rules and chains, without comments and packet counters."""
    if shutil.which(command) is None:
        return []
    lines = run(command).splitlines()
    return [f"{command}: {line.split(' [')[0]}" for line in lines if not line.startswith("#")]
