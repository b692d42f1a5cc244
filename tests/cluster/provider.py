"""Which cluster serves the tests here, and why."""

import json
import os
import shutil
from pathlib import Path
from typing import Protocol

from tests.cluster.build import missing_binaries
from tests.cluster.existing import ExistingCluster
from tests.cluster.kind import KindCluster
from tests.cluster.layout import Layout
from tests.cluster.node_cluster import NodeCluster
from tests.cluster.shell import ClusterError, say, succeeds

WANTED = "RFT_TEST_CLUSTER"
NODE_IMAGE = "RFT_KIND_NODE_IMAGE"
KINDS = ("kind", "node", "old")
"""What ``RFT_TEST_CLUSTER`` may ask for: kind; an own node with ready programs; one of Kubernetes 1.20."""


class Provider(Protocol):
    """One way to have a cluster. Every method raises ClusterError where it cannot do its part."""

    kubeconfig: Path

    def up(self) -> None:
        """Start the cluster; return when pods can be created. A running one is left alone."""

    def down(self) -> None:
        """Remove the cluster and every trace of it, be it running, half started or dead."""

    def load_images(self, archives: list[Path]) -> None:
        """Make the images of ``docker save`` or OCI archives known to every node that runs pods."""

    def describe(self) -> dict[str, str]:
        """What a person or a test wants to know of the running cluster."""


def choose_provider(layout: Layout) -> Provider:
    """Take the provider of the cluster that was started, else the first that works here; say which and why.

    Raises:
        ClusterError: ``RFT_TEST_CLUSTER`` asks for one that is unknown or cannot be had here.
    """
    if kubeconfig := os.environ.get("RFT_TEST_KUBECONFIG"):
        say(f"using the cluster of RFT_TEST_KUBECONFIG, {kubeconfig}")
        return ExistingCluster(Path(kubeconfig))
    if layout.choice.exists():
        return _started(layout, json.loads(layout.choice.read_text()))
    wanted = os.environ.get(WANTED, "")
    if wanted not in ("", *KINDS):
        raise ClusterError(
            f"{WANTED}={wanted} is none of {', '.join(KINDS)}; unset, the first that works is used"
        )
    if wanted in ("", "kind"):
        obstacle = _obstacle_to_kind()
        if not obstacle:
            say("using kind: a Docker engine answers")
            return KindCluster(layout, Path(shutil.which("kind") or ""), os.environ.get(NODE_IMAGE))
        if wanted:
            raise ClusterError(f"{WANTED}=kind, but {obstacle}")
        say(f"not kind: {obstacle}")
    if wanted in ("", "node"):
        assets = Path(os.environ.get("KUBEBUILDER_ASSETS", ""))
        obstacle = _obstacle_to_assets(assets)
        if not obstacle:
            say(f"using a node of our own with the binaries in KUBEBUILDER_ASSETS, {assets}")
            return NodeCluster(layout, assets)
        if wanted:
            raise ClusterError(f"{WANTED}=node, but {obstacle}")
        say(f"not ready binaries: {obstacle}")
    say("using a node of our own, built from Debian's source package")
    return NodeCluster(layout, None)


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
    """The provider that ``up`` wrote down: later commands may have another environment."""
    binaries = Path(choice["binaries"]) if "binaries" in choice else None
    kind = choice["provider"] if choice["provider"] == "kind" or binaries else "old"
    if os.environ.get(WANTED, kind) not in ("", kind):
        say(f"the cluster that was started is {kind}; {WANTED} counts once it is down")
    if kind == "kind":
        return KindCluster(layout, Path(choice["program"]), choice.get("image"))
    return NodeCluster(layout, binaries)
