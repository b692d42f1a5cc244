"""Which cluster serves the tests here, and why."""

import os
import shutil
from pathlib import Path
from typing import Protocol

from tests.cluster.build import missing_binaries
from tests.cluster.existing import ExistingCluster
from tests.cluster.kind import KindCluster
from tests.cluster.layout import Layout
from tests.cluster.node_cluster import NodeCluster
from tests.cluster.shell import say, succeeds


class Provider(Protocol):
    """One way to have a cluster. Every method raises ClusterError where it cannot do its part."""

    kubeconfig: Path

    def up(self) -> None:
        """Start the cluster; return when pods can be created. A running one is left alone."""

    def down(self) -> None:
        """Remove the cluster and every trace of it, be it running, half started or dead."""

    def load_images(self, archives: list[Path]) -> None:
        """Make the images of ``docker save`` or OCI archives known to every node."""

    def describe(self) -> dict[str, str]:
        """What a person or a test wants to know of the running cluster."""


def choose_provider(layout: Layout) -> Provider:
    """Take the first provider that works here, and say so on stderr."""
    if kubeconfig := os.environ.get("RFT_TEST_KUBECONFIG"):
        say(f"using the cluster of RFT_TEST_KUBECONFIG, {kubeconfig}")
        return ExistingCluster(Path(kubeconfig))
    if shutil.which("kind") is None:
        say("not kind: it is not on the PATH")
    elif not succeeds("docker", "info"):
        say("not kind: no Docker engine answers")
    else:
        say("using kind: a Docker engine answers")
        return KindCluster(layout)
    if assets := os.environ.get("KUBEBUILDER_ASSETS"):
        if not (missing := missing_binaries(Path(assets))):
            say(f"using a node of our own with the binaries in KUBEBUILDER_ASSETS, {assets}")
            return NodeCluster(layout, Path(assets))
        say(f"not KUBEBUILDER_ASSETS: {assets} has no {', '.join(missing)}, so no pods would run")
    say("using a node of our own, built from Debian's source package")
    return NodeCluster(layout, None)
