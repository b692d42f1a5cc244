"""A kind cluster, where a Docker engine answers."""

from pathlib import Path

from tests.cluster.layout import Layout
from tests.cluster.shell import run, say

NAME = "rft-test"


class KindCluster:
    """One kind node. Its default storage class serves claims, so it needs no ready-made volumes."""

    def __init__(self, layout: Layout) -> None:
        self.kubeconfig = layout.kubeconfig

    def up(self) -> None:
        """Create the cluster and wait for its node."""
        if NAME in run("kind", "get", "clusters").split():
            run("kind", "export", "kubeconfig", "--name", NAME, "--kubeconfig", self.kubeconfig)
            return
        try:
            where = ("--name", NAME, "--kubeconfig", self.kubeconfig)
            run("kind", "create", "cluster", *where, "--wait", "120s")
        except BaseException:
            say("removing the half-started kind cluster")
            self.down()
            raise

    def down(self) -> None:
        """Delete the cluster; kind does not mind an absent one."""
        run("kind", "delete", "cluster", "--name", NAME, "--kubeconfig", self.kubeconfig)
        self.kubeconfig.unlink(missing_ok=True)

    def load_images(self, archives: list[Path]) -> None:
        """Hand the archives to kind."""
        for archive in archives:
            run("kind", "load", "image-archive", "--name", NAME, archive)

    def describe(self) -> dict[str, str]:
        """The address of the host as pods see it is the gateway of kind's Docker network."""
        gateway = "{{range .IPAM.Config}}{{.Gateway}} {{end}}"
        addresses = run("docker", "network", "inspect", "kind", "--format", gateway).split()
        hosts = [address for address in addresses if ":" not in address]
        return {"provider": "kind", "host_address": hosts[0] if hosts else ""}
