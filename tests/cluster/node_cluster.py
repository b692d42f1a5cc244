"""A test cluster of one node, which runs in Linux namespaces on this machine."""

import json
import time
from pathlib import Path

from tests.cluster.build import kubernetes_binaries
from tests.cluster.components import CONTAINERD_SOCKET
from tests.cluster.host import Starter, check_machine, plan_node, remove_node
from tests.cluster.images import LoadedImages
from tests.cluster.kubernetes import Kubernetes
from tests.cluster.layout import Layout
from tests.cluster.leftovers import save_snapshot
from tests.cluster.packages import RUNTIME, ensure_packages
from tests.cluster.pause import pause_archive
from tests.cluster.processes import first_process
from tests.cluster.shell import ClusterError, locked, run, say, succeeds, wait_until
from tests.cluster.spec import NodeSpec

READY_SECONDS = 180


class NodeCluster:
    """A test cluster of one node. ``binaries``: None means the binaries built from Debian's source."""

    def __init__(self, layout: Layout, binaries: Path | None) -> None:
        self.layout = layout
        self.binaries = binaries
        self.kubeconfig = layout.kubeconfig

    def up(self) -> None:
        """Start the node and wait until pods can be created. Do nothing if the node is ready."""
        with locked(self.layout.lock):
            if self._is_ready():
                return
            self.layout.logs.mkdir(parents=True, exist_ok=True)
            remove_node(self.layout)  # remove what an interrupted start or stop left
            self._write_choice()
            try:
                self._start()
            except BaseException:
                say(f"removing the half-started cluster; its logs stay in {self.layout.logs}")
                remove_node(self.layout)
                raise

    def down(self) -> None:
        """Kill the node and remove everything that it created."""
        with locked(self.layout.lock):
            remove_node(self.layout)

    def load_images(self, archives: list[Path]) -> None:
        """Import images into containerd, in the namespace that the kubelet uses."""
        process = first_process(self.layout.state)
        if process is None:
            raise ClusterError("the cluster is not running")
        loaded = LoadedImages(self.layout.data / "loaded-images")
        for archive in archives:
            with loaded.once(archive) as wanted:
                if wanted:
                    _import_image(process, archive)

    def describe(self) -> dict[str, str]:
        """Return the cluster's addresses, and data with which the host can find the node's processes."""
        process = first_process(self.layout.state)
        if process is None or not self._is_ready():
            raise ClusterError("the cluster is not running, or not ready yet")
        spec = NodeSpec.from_json(self.layout.record.read_text())
        return {
            "provider": "node",
            "server": spec.server,
            "service_account_key": str(self.layout.config / "service-account.key"),
            "host_address": spec.network.host_address,
            "services": spec.network.services,
            "pods": spec.network.pods,
            "ingest_ip": spec.network.ingest_ip,
            "node_process": str(process),
            "containerd_socket": f"/proc/{process}/root{CONTAINERD_SOCKET}",
            "logs": str(self.layout.logs),
        }

    def _is_ready(self) -> bool:
        return (
            self.kubeconfig.exists()
            and first_process(self.layout.state) is not None
            and Kubernetes(self.layout, self.kubeconfig).is_ready()
        )

    def _write_choice(self) -> None:
        binaries = {"binaries": str(self.binaries)} if self.binaries else {}
        self.layout.choice.write_text(json.dumps({"provider": "node", **binaries}))

    def _start(self) -> None:
        check_machine()
        ensure_packages(RUNTIME)
        binaries = self.binaries or kubernetes_binaries(self.layout.cache)
        pause = pause_archive(self.layout.cache)
        for log in self.layout.logs.iterdir():
            log.unlink()
        save_snapshot(self.layout)
        started = time.monotonic()
        spec = plan_node(self.layout, binaries)
        say(f"starting Kubernetes 1.{spec.minor_version}; Services get addresses in {spec.network.services}")
        starter = Starter(spec)
        kubernetes = Kubernetes(self.layout, self.kubeconfig)

        def ready() -> bool:
            starter.check()
            return kubernetes.is_ready()

        wait_until(f"ready cluster (logs in {self.layout.logs})", READY_SECONDS, ready, poll=1.0)
        self.load_images([pause])
        kubernetes.make_volumes()
        starter.keep()
        say(f"ready after {time.monotonic() - started:.0f} s")


def _import_image(node_process: int, archive: Path) -> None:
    """Import an archive through containerd's socket, which is in the node's ``/run``."""
    socket = Path(f"/proc/{node_process}/root{CONTAINERD_SOCKET}")
    client = ("ctr", f"--address={socket}", "--namespace=k8s.io")
    wait_until("answer from containerd", 30, lambda: succeeds(*client, "version"))
    run(*client, "images", "import", archive)
