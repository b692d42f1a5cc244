"""The node's first process: prepares the node's namespaces, then keeps its components running.

``host.Starter`` starts this process as PID 1 of new PID, mount and network namespaces. When the process ends,
the kernel kills all other processes of the node. It also removes the node's mounts, links and iptables rules.
"""

import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

from tests.cluster.components import Component, components
from tests.cluster.network import configure_node_side
from tests.cluster.shell import run
from tests.cluster.spec import NodeSpec

RESTART_SECONDS = 1.0
KEEP = b"keep"

# The components write to fixed paths in these folders. An overlay on each folder keeps these files off the
# host.
COVERED = ("/var/lib", "/var/log")
ON_DISK = {"/var/lib/kubelet": "kubelet", "/var/log/pods": "pod-logs"}

# The kubelet sets these values for the whole machine, unless it reads that they are set already. So files
# with these values are mounted over the settings.
KERNEL_SETTINGS = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1000000,
    "kernel/keys/root_maxbytes": 25000000,
}


def main(spec_file: str) -> None:
    """Run the node until it is killed, or until its Starter's process ends without sending ``keep``."""
    spec = NodeSpec.from_json(Path(spec_file).read_text())
    signal.signal(signal.SIGTERM, _exit)
    _mount(spec)
    configure_node_side(spec.network)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    Supervisor(spec).run_forever()


class Supervisor:
    """Starts the components, and restarts components that end."""

    def __init__(self, spec: NodeSpec) -> None:
        self.logs = spec.layout.logs
        self.waiting: dict[str, tuple[float, Component]] = {
            component.name: (0.0, component) for component in components(spec)
        }
        self.running: dict[int, tuple[Component, subprocess.Popen[bytes]]] = {}

    def run_forever(self) -> None:
        starter_watched = True
        while True:
            self._start_due()
            self._reap()
            ready, _, _ = select.select([0] if starter_watched else [], [], [], 0.2)
            if ready:
                if os.read(0, len(KEEP)) != KEEP:
                    print("node: ending, because the process that started the node has ended", flush=True)
                    return
                starter_watched = False

    def _start_due(self) -> None:
        for name, (due, component) in list(self.waiting.items()):
            if time.monotonic() >= due:
                del self.waiting[name]
                with (self.logs / f"{name}.log").open("ab") as log:
                    process = subprocess.Popen(
                        component.command,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )
                self.running[process.pid] = (component, process)

    def _reap(self) -> None:
        """Collect the exit codes of ended processes. An ended component starts again after
        ``RESTART_SECONDS``.

        This process is PID 1 of its namespace, so it must also collect the namespace's orphans.
        """
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = ended
                if pid in self.running:
                    component, process = self.running.pop(pid)
                    process.returncode = os.waitstatus_to_exitcode(status)
                    print(f"node: {component.name} ended with exit code {process.returncode}", flush=True)
                    self.waiting[component.name] = (time.monotonic() + RESTART_SECONDS, component)


def _mount(spec: NodeSpec) -> None:
    # Mounts of the kubelet must propagate to containers. They do not propagate to the host, because
    # ``unshare`` has made all mounts private.
    run("mount", "--make-rshared", "/")
    run("mount", "-t", "tmpfs", "tmpfs", "/run")
    state = spec.layout.state
    kept = Path("/run/rft-test/state")
    _bind(state, kept)
    for target in COVERED:
        _cover(target)
    _bind(kept, state)  # an overlay hides the state folder if that is in one of COVERED
    for target, name in ON_DISK.items():
        (spec.layout.data / name).mkdir(parents=True)
        _bind(spec.layout.data / name, Path(target))
    for setting, value in KERNEL_SETTINGS.items():
        if Path("/proc/sys", setting).exists():
            stand_in = Path("/run/rft-test/kernel-settings") / setting
            stand_in.parent.mkdir(parents=True, exist_ok=True)
            stand_in.write_text(f"{value}\n")
            run("mount", "--bind", stand_in, Path("/proc/sys", setting))


def _bind(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    run("mount", "--bind", source, target)


def _cover(target: str) -> None:
    """Mount an overlay over a folder of the host, so that writes go to the node's tmpfs."""
    upper, work = (Path("/run/rft-test", kind, target[1:]) for kind in ("upper", "work"))
    upper.mkdir(parents=True)
    work.mkdir(parents=True)
    options = f"lowerdir={target},upperdir={upper},workdir={work}"
    run("mount", "-t", "overlay", "-o", options, "overlay", target)


def _exit(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    main(sys.argv[1])
