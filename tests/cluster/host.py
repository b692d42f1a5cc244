"""The host's part of a node: starts the node, and removes everything that the node created."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.cluster.build import minor_version
from tests.cluster.cgroups import check_controllers, make_cgroup, remove_cgroup
from tests.cluster.config import write_configuration
from tests.cluster.layout import Layout
from tests.cluster.network import choose_network, connect, disconnect
from tests.cluster.node import KEEP
from tests.cluster.processes import end_node, first_process, mark
from tests.cluster.shell import ClusterError, say, succeeds, tail, wait_until
from tests.cluster.spec import NodeSpec

CAP_SYS_RESOURCE = 24


def check_machine() -> None:
    """Raise ClusterError if this machine cannot run a node, even after the installation of packages."""
    if os.geteuid() != 0:
        raise ClusterError("running a node needs root")
    if not succeeds("unshare", "--pid", "--fork", "--mount", "--net", "true"):
        raise ClusterError("running a node needs new PID, mount and network namespaces (CAP_SYS_ADMIN)")
    check_controllers()


def plan_node(layout: Layout, binaries: Path) -> NodeSpec:
    """Return a configuration with which a node can run on this machine."""
    return NodeSpec(
        name=layout.name,
        binaries=binaries,
        minor_version=minor_version(binaries),
        snapshotter=_snapshotter(layout.state),
        lacks_sys_resource=_lacks_capability(CAP_SYS_RESOURCE),
        network=choose_network(),
        layout=layout,
    )


class Starter:
    """Starts a node, and holds an open pipe to the node.

    The node ends when the process of the Starter ends, even by SIGKILL. After a call of ``keep`` the node
    runs on when that process ends.
    """

    def __init__(self, spec: NodeSpec) -> None:
        """Write ``spec`` into a file, create everything that the node needs, and start the node.

        Raises:
            ClusterError: something could not be created. Then call ``remove_node`` to remove the rest.
        """
        self.layout = spec.layout
        self.layout.record.write_text(spec.to_json())
        make_cgroup(spec.name)
        write_configuration(spec)
        self.process = self._spawn()
        connect(spec.network, spec.name, self._await_first_process())

    def check(self) -> None:
        """Raise ClusterError if the node has ended."""
        if self.process.poll() is not None:
            raise ClusterError(f"the node ended, its log:\n{tail(self.layout.logs / 'node.log')}")

    def keep(self) -> None:
        """Let the node continue after this process has ended."""
        assert self.process.stdin is not None
        self.process.stdin.write(KEEP)
        self.process.stdin.close()

    def _spawn(self) -> "subprocess.Popen[bytes]":
        namespaces = ["--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--net"]
        node = [sys.executable, "-m", "tests.cluster.node", str(self.layout.record)]
        with (self.layout.logs / "node.log").open("ab") as log:
            return subprocess.Popen(
                ["unshare", *namespaces, "--", *node],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.layout.repository,
                env={**os.environ, **mark(self.layout.state)},
                start_new_session=True,
            )

    def _await_first_process(self) -> int:
        """Wait until the node's first process is found. Return its PID, as seen by the host.

        A process that executes another program has no environment for a moment, so it may be found once and
        not found the next time.
        """
        found: list[int] = []

        def seen() -> bool:
            self.check()
            found.extend(filter(None, [first_process(self.layout.state)]))
            return bool(found)

        wait_until("sign of the node's first process", 20, seen)
        return found[0]


def remove_node(layout: Layout) -> None:
    """Remove everything that a node created, also after an interrupted start. Logs are kept.

    Raises:
        ClusterError: the node's processes cannot be killed.
    """
    end_node(layout.state)
    if layout.record.exists():
        name = NodeSpec.from_json(layout.record.read_text()).name
        disconnect(name)
        remove_cgroup(name)
    for folder in (layout.data, layout.volumes, layout.config):
        if folder.exists():
            shutil.rmtree(folder)
    layout.kubeconfig.unlink(missing_ok=True)
    layout.choice.unlink(missing_ok=True)
    layout.record.unlink(missing_ok=True)


def _lacks_capability(number: int) -> bool:
    status = Path("/proc/self/status").read_text()
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    lacks = not int(effective.split()[1], 16) >> number & 1
    if lacks:
        say("CAP_SYS_RESOURCE is missing: containers cannot have a lower OOM score than this process")
    return lacks


def _snapshotter(state: Path) -> str:
    """Return containerd's snapshotter: overlayfs if ``state``'s file system supports it, else native."""
    with tempfile.TemporaryDirectory(dir=state) as folder:
        names = [Path(folder, name) for name in ("lower", "upper", "work", "merged")]
        for path in names:
            path.mkdir()
        lower, upper, work, merged = names
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        overlay = ["mount", "-t", "overlay", "-o", options, "overlay", str(merged)]
        if succeeds("unshare", "--mount", *overlay):
            return "overlayfs"
    say(f"{state} does not support overlayfs: images are copied, which takes more time and disk space")
    return "native"
