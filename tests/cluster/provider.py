"""Chooses the cluster for the tests on this machine, and prints the reason for the choice."""

import json
import os
import shutil
from pathlib import Path
from typing import Protocol

from tests.cluster.build import missing_binaries
from tests.cluster.existing import ExistingCluster
from tests.cluster.kind import IP_FAMILIES, KindCluster
from tests.cluster.layout import Layout
from tests.cluster.node_cluster import NodeCluster
from tests.cluster.shell import ClusterError, say, succeeds

WANTED = "RFT_TEST_CLUSTER"
NODE_IMAGE = "RFT_KIND_NODE_IMAGE"
IP_FAMILY = "RFT_KIND_IP_FAMILY"
KINDS = ("kind", "node", "old")
"""Values of ``RFT_TEST_CLUSTER``:

- ``kind`` uses kind in Docker.
- ``node`` starts one Kubernetes node on this machine, with the binaries in ``KUBEBUILDER_ASSETS``.
- ``old`` starts one Kubernetes node on this machine, with Kubernetes 1.20 of Debian."""


class Provider(Protocol):
    """Starts and stops one type of test cluster. Every method raises ClusterError when it fails."""

    kubeconfig: Path

    def up(self) -> None:
        """Start the cluster and wait until pods can be created. Do nothing if the cluster is running."""

    def down(self) -> None:
        """Remove the cluster completely, even if its start was interrupted or it has died."""

    def load_images(self, archives: list[Path]) -> None:
        """Load images from ``docker save`` or OCI archives into every node that runs pods."""

    def describe(self) -> dict[str, str]:
        """Return data about the running cluster, for people and tests."""


def choose_provider(layout: Layout) -> Provider:
    """Return the provider of the running cluster, or the first provider that works here if no cluster runs.

    Print which provider is used, and why.

    Raises:
        ClusterError: the provider in ``RFT_TEST_CLUSTER`` is unknown or does not work here, or
            ``RFT_KIND_IP_FAMILY`` is unknown.
    """
    if kubeconfig := os.environ.get("RFT_TEST_KUBECONFIG"):
        say(f"using the cluster of RFT_TEST_KUBECONFIG, {kubeconfig}")
        return ExistingCluster(Path(kubeconfig))
    if layout.choice.exists():
        return _started(layout, json.loads(layout.choice.read_text()))
    wanted = os.environ.get(WANTED, "")
    if wanted not in ("", *KINDS):
        raise ClusterError(
            f"{WANTED}={wanted} is not one of {', '.join(KINDS)}; unset it to use the first that works"
        )
    if wanted in ("", "kind"):
        obstacle = _obstacle_to_kind()
        if not obstacle:
            say("using kind: a Docker engine answers")
            program = Path(shutil.which("kind") or "")
            return KindCluster(layout, program, os.environ.get(NODE_IMAGE), _ip_family())
        if wanted:
            raise ClusterError(f"{WANTED}=kind, but {obstacle}")
        say(f"not using kind: {obstacle}")
    if wanted in ("", "node"):
        assets = Path(os.environ.get("KUBEBUILDER_ASSETS", ""))
        obstacle = _obstacle_to_assets(assets)
        if not obstacle:
            say(f"using a node on this machine with the binaries in KUBEBUILDER_ASSETS, {assets}")
            return NodeCluster(layout, assets)
        if wanted:
            raise ClusterError(f"{WANTED}=node, but {obstacle}")
        say(f"not using the binaries in KUBEBUILDER_ASSETS: {obstacle}")
    say("using a node on this machine, built from Debian's source package")
    return NodeCluster(layout, None)


def _ip_family() -> str:
    family = os.environ.get(IP_FAMILY, "ipv4")
    if family not in IP_FAMILIES:
        raise ClusterError(f"{IP_FAMILY}={family} is not one of {', '.join(IP_FAMILIES)}")
    return family


def _obstacle_to_kind() -> str:
    if shutil.which("kind") is None:
        return "kind is not on the PATH"
    return "" if succeeds("docker", "info") else "no Docker engine answers"


def _obstacle_to_assets(folder: Path) -> str:
    if "KUBEBUILDER_ASSETS" not in os.environ:
        return "KUBEBUILDER_ASSETS is not set"
    missing = missing_binaries(folder)
    return f"{folder} has no {', '.join(missing)}, so no pods would run" if missing else ""


def _started(layout: Layout, choice: dict[str, str]) -> Provider:
    """Return the provider that ``up`` wrote into ``choice``, even if the environment names another one."""
    binaries = Path(choice["binaries"]) if "binaries" in choice else None
    kind = choice["provider"] if choice["provider"] == "kind" or binaries else "old"
    if os.environ.get(WANTED, kind) not in ("", kind):
        say(f"the running cluster is {kind}; {WANTED} takes effect after `down`")
    if kind == "kind":
        family = choice.get("ip_family", "ipv4")
        return KindCluster(layout, Path(choice["program"]), choice.get("image"), family)
    return NodeCluster(layout, binaries)
