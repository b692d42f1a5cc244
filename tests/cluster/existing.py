"""A test cluster that exists already."""

from pathlib import Path

from tests.cluster.shell import ClusterError, say


class ExistingCluster:
    """The cluster of ``RFT_TEST_KUBECONFIG``. The tests neither start nor stop it."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig

    def up(self) -> None:
        """Check that the kubeconfig exists."""
        if not self.kubeconfig.is_file():
            raise ClusterError(f"the file in RFT_TEST_KUBECONFIG does not exist: {self.kubeconfig}")

    def down(self) -> None:
        """Do nothing: the cluster keeps running."""
        say("the cluster of RFT_TEST_KUBECONFIG keeps running")

    def load_images(self, archives: list[Path]) -> None:
        """Raise ClusterError, because the cluster's nodes can only pull images from a registry."""
        raise ClusterError(
            "cannot load images into the cluster of RFT_TEST_KUBECONFIG: push them to a "
            f"registry that its nodes can pull from ({', '.join(map(str, archives))})"
        )

    def describe(self) -> dict[str, str]:
        """Return only the provider's name: nothing else is known about the cluster."""
        return {"provider": "existing"}
