"""The faults: how each one is injected and removed.

Some faults stop or kill processes of the test cluster's node. The node must run on this machine.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.chaos.jobs import NAME_LABEL
from tests.cluster.layout import default_layout
from tests.cluster.processes import all_processes, node_processes
from tests.kubectl import Kubectl, Object
from tests.waiting import wait_until

OPERATOR = "deployment/rft-operator"
IN_PODS = {"operator": "-m rft_operator", "trainer": "-m rft_trainer --config", "sampler": "vllm.entrypoints"}
FILLER = "/runs/filler"
VOLUME_SIZE = "64m"
NEIGHBOUR = "rft-chaos-neighbour"
HEARTBEAT_SECONDS = 5.0
NODE = ("kubelet", "containerd", "trainer")
"""Programs that are paused to simulate a stopped node. The operator continues, as if on another node."""
COMPONENTS = ("etcd", "kube-apiserver", "kubelet", "containerd")


@dataclass(frozen=True)
class Target:
    """The RFTJobs that a fault must hit, and kubectl for their namespace and for the operator's."""

    jobs: Kubectl
    """kubectl in the namespace of the RFTJobs."""
    operator: Kubectl
    """kubectl in the operator's namespace."""
    names: tuple[str, ...]
    """Names of the RFTJobs."""

    @property
    def selector(self) -> str:
        """Label selector for the jobs' child objects."""
        return f"{NAME_LABEL} in ({','.join(self.names)})"


@dataclass(frozen=True)
class Fault:
    """A fault. ``inject`` begins the fault, and returns when the fault is over."""

    name: str
    inject: Callable[[Target], None]
    engine: str | None = None
    """The sampling engine that the fault needs. None: it works with each engine."""
    interrupts: bool = False
    """If true, the fault counts as a hit only if the job continued in a new pod or with a new vLLM."""
    lost_node_seconds: int | None = None
    """Seconds for which the jobs' pods tolerate a lost node. None: the cluster's default."""


def pids(program: str) -> list[int]:
    """Return the PIDs, on the host, of a program: a component of the node, or a program in a pod."""
    if program in COMPONENTS:
        node = node_processes(default_layout().state)
        assert node, "this fault needs a node on this machine: `RFT_TEST_CLUSTER=old make cluster-up`"
        return [pid for pid in node if Path(_command(pid).split(" ")[0]).name == program]
    return [pid for pid in all_processes() if IN_PODS[program] in _command(pid) and _in_a_container(pid)]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _in_a_container(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/ns/pid").readlink() != Path("/proc/self/ns/pid").readlink()
    except OSError:
        return False


def kill(program: str) -> Callable[[Target], None]:
    """Return a fault that sends SIGKILL to a program. Its supervisor or the kubelet starts it again."""

    def inject(_: Target) -> None:
        _send(pids(program), signal.SIGKILL)

    return inject


def freeze(seconds: float, *programs: str) -> Callable[[Target], None]:
    """Return a fault that pauses programs for ``seconds``, with SIGSTOP and SIGCONT."""

    def inject(_: Target) -> None:
        with stopped(*programs):
            time.sleep(seconds)

    return inject


def lose_node(seconds: float) -> Callable[[Target], None]:
    """Return a fault that pauses the node for ``seconds``. Meanwhile a second node is reported as ready.

    If no node were ready, Kubernetes would assume that the network is broken, and evict no pod.
    """

    def inject(target: Target) -> None:
        until = time.monotonic() + seconds
        with neighbour(target.operator) as well, stopped(*NODE):
            while time.monotonic() < until:
                well()
                time.sleep(HEARTBEAT_SECONDS)

    return inject


@contextmanager
def neighbour(kubectl: Kubectl) -> Iterator[Callable[[], None]]:
    """Create an unschedulable Node object without a machine. Yield a function that reports it as ready.

    Kubernetes regards the Node as lost again if the function is not called for 40 seconds.
    """
    node: Object = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NEIGHBOUR}}

    def well() -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        ready = {"type": "Ready", "status": "True", "reason": "Said", "lastHeartbeatTime": now}
        said = json.dumps({**node, "status": {"conditions": [ready]}})
        kubectl.run("replace", "--raw", f"/api/v1/nodes/{NEIGHBOUR}/status", "-f", "-", stdin=said)

    kubectl.apply({**node, "spec": {"unschedulable": True}})
    try:
        well()
        yield well
    finally:
        kubectl.run("delete", "node", NEIGHBOUR)


@contextmanager
def stopped(*programs: str) -> Iterator[None]:
    """Pause programs with SIGSTOP in the ``with`` block. Continue them afterwards, also after an error."""
    held = [pid for program in programs for pid in pids(program)]
    _send(held, signal.SIGSTOP)
    try:
        yield
    finally:
        _send(held, signal.SIGCONT)


def _send(targets: list[int], number: signal.Signals) -> None:
    for pid in targets:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def delete_pod(target: Target) -> None:
    """Delete the pods as a user would, with the normal grace period."""
    target.jobs.run("delete", "pod", "-l", target.selector, "--wait=false")


def away_until_the_end(target: Target) -> None:
    """Scale the operator to 0 replicas until the child Jobs have ended."""
    many = len(target.names)
    wait_until("all jobs have a pod", lambda: len(target.jobs.list("pods", target.selector)) == many, 120)
    target.operator.run("scale", OPERATOR, "--replicas=0")
    try:
        wait_until("the child Jobs end", lambda: _jobs_ended(target), 300, poll=1.0)
    finally:
        target.operator.run("scale", OPERATOR, "--replicas=2")


def _jobs_ended(target: Target) -> bool:
    found = target.jobs.list("jobs", target.selector)
    return all(one.get("status", {}).get("completionTime") for one in found)


def second_operator(target: Target) -> None:
    """Scale the operator to 4 replicas, two more than the chart's, for 15 seconds."""
    target.operator.run("scale", OPERATOR, "--replicas=4")
    try:
        time.sleep(15)
    finally:
        target.operator.run("scale", OPERATOR, "--replicas=2")


def full_volume(target: Target) -> None:
    """Fill the runs' volume for 25 seconds, so that checkpoints and new attempts fail."""
    fill = f"dd if=/dev/zero of={FILLER} bs=64k; sync"
    target.jobs.run("exec", "reader", "--", "sh", "-c", fill)
    try:
        time.sleep(25)
    finally:
        target.jobs.run("exec", "reader", "--", "rm", FILLER)


def mount_small(folder: str) -> None:
    """Mount a small tmpfs on a folder of the node, so that a fault can fill it. Needs root."""
    _in_node("mount", "-t", "tmpfs", "-o", f"size={VOLUME_SIZE},mode=777", "runs", folder)


def unmount(folder: str) -> None:
    """Unmount the tmpfs of ``mount_small``."""
    _in_node("umount", "--lazy", folder)


def _in_node(*command: str) -> None:
    (kubelet,) = pids("kubelet")
    subprocess.run(["nsenter", f"--target={kubelet}", "--mount", "--pid", *command], check=True)


NOTHING = Fault("nothing", lambda _: None)
"""No fault. Rounds without a fault measure how long an undisturbed job takes."""
# Kubernetes regards a node as lost after 40 s without a heartbeat.
FAULTS = (
    Fault("operator killed", kill("operator")),
    Fault("trainer killed", kill("trainer"), interrupts=True),
    Fault("sampler killed", kill("sampler"), engine="vllm", interrupts=True),
    Fault("pod deleted", delete_pod, interrupts=True),
    Fault("node stopped for 20 s", freeze(20, *NODE)),
    Fault(
        "node stopped for 100 s, its pods evicted after 60 s",
        lose_node(100),
        lost_node_seconds=20,
    ),
    Fault("API server stopped for 60 s", freeze(60, "kube-apiserver")),
    Fault("etcd restarted", kill("etcd")),
    Fault("operator away until the end", away_until_the_end),
    Fault("two operators", second_operator),
    Fault("volume full for 25 s", full_volume),
)
