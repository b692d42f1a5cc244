"""A test cluster that was not started by the tests."""

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
        """Raise ClusterError: the cluster's nodes can get images only from a registry."""
        raise ClusterError(
            "cannot load images into the cluster of RFT_TEST_KUBECONFIG: push them to a "
            f"registry that its nodes can pull from ({', '.join(map(str, archives))})"
        )

    def describe(self) -> dict[str, str]:
        """Return only the provider's name, because nothing else is known about the cluster."""
        return {"provider": "existing"}
