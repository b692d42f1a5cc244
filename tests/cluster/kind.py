"""A test cluster that kind creates with Docker."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

from tests.cluster.config import AUDIT_POLICY
from tests.cluster.images import LoadedImages
from tests.cluster.kubernetes import Kubernetes
from tests.cluster.layout import Layout
from tests.cluster.shell import ClusterError, locked, run, say, succeeds, wait_until

WORKERS = 2
MEBIBYTES_FOR_WORKERS = 8 * 1024
"""Free memory in MiB that two workers need. With less memory the cluster has only one node. A trainer needs
3.5 GiB, and a node 0.5 GiB."""
IP_FAMILIES = ("ipv4", "ipv6", "dual")
"""Values of kind's ``ipFamily``: pods and Services have addresses of this family, or of both."""
READY_SECONDS = 240
SETTLE_SECONDS = 60
_AUDIT = "/etc/kubernetes/rft-test-audit"  # the path in the node at which ``layout.config`` is mounted


class KindCluster:
    """A kind cluster with a control plane and two workers, or with one node if there is little memory.

    Tests can read the API server's audit log and its signing key on the host. The folders of the volumes are
    mounted into all nodes, so a pod sees the same files on every node.
    """

    def __init__(self, layout: Layout, program: Path, image: str | None, ip_family: str = "ipv4") -> None:
        """``program`` is the path of kind. ``image`` is the image of the nodes; None: kind's default.
        ``ip_family`` is one of IP_FAMILIES."""
        self.layout = layout
        self.program = program
        self.image = image
        self.ip_family = ip_family
        self.kubeconfig = layout.kubeconfig

    def up(self) -> None:
        """Create the cluster and wait until its nodes are ready. Do nothing if the cluster is ready."""
        with locked(self.layout.lock):
            if self._is_ready():
                return
            self._remove()  # remove what an interrupted start or stop left
            self._write_choice()
            try:
                self._create()
            except BaseException:
                say(f"removing the half-started kind cluster; its logs stay in {self.layout.logs}")
                self._remove()
                raise

    def down(self) -> None:
        """Delete the cluster. kind reports no error if there is no cluster."""
        with locked(self.layout.lock):
            self._remove()

    def load_images(self, archives: list[Path]) -> None:
        """Load each archive, unless it is loaded already, into the nodes that run pods."""
        loaded = LoadedImages(self.layout.data / "loaded-images")
        nodes = ",".join(self._nodes_for_pods())
        for archive in archives:
            with loaded.once(archive) as wanted:
                if wanted:
                    self._kind("load", "image-archive", "--nodes", nodes, "--name", self.layout.name, archive)

    def describe(self) -> dict[str, str]:
        """Return data about the cluster. Pods reach the host at the gateway of kind's Docker network."""
        if not self._is_ready():
            raise ClusterError("the cluster is not running, or not ready yet")
        gateway = "{{range .IPAM.Config}}{{.Gateway}} {{end}}"
        addresses = run("docker", "network", "inspect", "kind", "--format", gateway).split()
        wants_ipv6 = self.ip_family == "ipv6"
        hosts = [address for address in addresses if (":" in address) == wants_ipv6]
        return {
            "provider": "kind",
            "ip_family": self.ip_family,
            "host_address": hosts[0] if hosts else "",
            "service_account_key": str(self._key),
            "nodes_for_pods": ",".join(self._nodes_for_pods()),
            "logs": str(self.layout.logs),
        }

    @property
    def _key(self) -> Path:
        return self.layout.config / "service-account.key"

    def _kind(self, *words: str | Path) -> str:
        return run(self.program, *words)

    def _is_ready(self) -> bool:
        return (
            self.kubeconfig.exists()
            and self.layout.choice.exists()
            and Kubernetes(self.layout, self.kubeconfig).is_ready()
        )

    def _write_choice(self) -> None:
        choice = {"provider": "kind", "program": str(self.program), "ip_family": self.ip_family}
        self.layout.state.mkdir(parents=True, exist_ok=True)
        self.layout.choice.write_text(json.dumps(choice | ({"image": self.image} if self.image else {})))

    def _create(self) -> None:
        for folder in (self.layout.logs, self.layout.config, self.layout.data, self.layout.volumes):
            folder.mkdir(parents=True, exist_ok=True)
        for log in self.layout.logs.iterdir():
            log.unlink()
        (self.layout.config / "policy.yaml").write_text(json.dumps(AUDIT_POLICY))
        path = self.layout.config / "kind.yaml"
        workers = WORKERS if _available_mebibytes() >= MEBIBYTES_FOR_WORKERS else 0
        say(f"starting kind with {f'a control plane and {workers} workers' if workers else 'one node'}")
        configuration = cluster_configuration(self.layout, workers, self.ip_family)
        path.write_text(json.dumps(configuration, indent=2))
        image: tuple[str, ...] = ("--image", self.image) if self.image else ()
        where = ("--name", self.layout.name, "--kubeconfig", self.kubeconfig, "--config", path)
        self._kind("create", "cluster", *where, *image, "--wait", f"{READY_SECONDS}s")
        control_plane = f"{self.layout.name}-control-plane"
        run("docker", "cp", f"{control_plane}:/etc/kubernetes/pki/sa.key", self._key)
        kubernetes = Kubernetes(self.layout, self.kubeconfig)
        wait_until("ready nodes", READY_SECONDS, kubernetes.is_ready, poll=1.0)
        kubernetes.leave_claims_without_a_class()
        kubernetes.make_volumes()

    def _nodes_for_pods(self) -> list[str]:
        names = self._kind("get", "nodes", "--name", self.layout.name).split()
        return [name for name in names if "control-plane" not in name] or names

    def _stays_deleted(self) -> bool:
        """Delete the cluster. Return whether it has no container one second later."""
        self._kind("delete", "cluster", "--name", self.layout.name, "--kubeconfig", self.kubeconfig)
        time.sleep(1)
        label = f"label=io.x-k8s.kind.cluster={self.layout.name}"
        return not run("docker", "ps", "--all", "--quiet", "--filter", label).split()

    def _remove(self) -> None:
        if self.layout.choice.exists() and succeeds("docker", "info"):
            # After an interrupted start the Docker engine may still create containers. So the cluster is
            # deleted until no container appears any more.
            wait_until("end of kind's containers", SETTLE_SECONDS, self._stays_deleted, poll=1.0)
        for folder in (self.layout.data, self.layout.volumes, self.layout.config):
            shutil.rmtree(folder, ignore_errors=True)
        self.kubeconfig.unlink(missing_ok=True)
        self.layout.choice.unlink(missing_ok=True)


def cluster_configuration(layout: Layout, workers: int, ip_family: str = "ipv4") -> dict[str, Any]:
    """Return the content of kind's configuration file: the nodes, their IP family, and the audit log."""
    policy, log = f"{_AUDIT}/policy.yaml", f"{_AUDIT}-logs/audit.log"
    api_server = {
        "extraArgs": [
            {"name": "audit-policy-file", "value": policy},
            {"name": "audit-log-path", "value": log},
        ],
        "extraVolumes": [
            {"name": "audit-policy", "hostPath": _AUDIT, "mountPath": _AUDIT, "readOnly": True},
            {"name": "audit-logs", "hostPath": f"{_AUDIT}-logs", "mountPath": f"{_AUDIT}-logs"},
        ],
    }
    volumes = {"hostPath": str(layout.volumes), "containerPath": str(layout.volumes)}
    patch = {"kind": "ClusterConfiguration", "apiServer": api_server}
    control_plane = {
        "role": "control-plane",
        "extraMounts": [
            volumes,
            {"hostPath": str(layout.config), "containerPath": _AUDIT},
            {"hostPath": str(layout.logs), "containerPath": f"{_AUDIT}-logs"},
        ],
        "kubeadmConfigPatches": [json.dumps(patch)],
    }
    return {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "networking": {"ipFamily": ip_family},
        "nodes": [control_plane, *({"role": "worker", "extraMounts": [volumes]} for _ in range(workers))],
    }


def _available_mebibytes() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("MemAvailable:"))
