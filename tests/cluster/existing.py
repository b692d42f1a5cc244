"""A cluster that exists already."""

from pathlib import Path

from tests.cluster.shell import ClusterError, say


class ExistingCluster:
    """The cluster of ``RFT_TEST_KUBECONFIG``. It is neither started nor stopped here."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig

    def up(self) -> None:
        """Check that the kubeconfig exists."""
        if not self.kubeconfig.is_file():
            raise ClusterError(f"RFT_TEST_KUBECONFIG names no file: {self.kubeconfig}")

    def down(self) -> None:
        """Leave it running."""
        say("the cluster of RFT_TEST_KUBECONFIG is left running")

    def load_images(self, archives: list[Path]) -> None:
        """Raise ClusterError: images cannot be loaded, its nodes pull them from a registry."""
        raise ClusterError(
            "cannot load images into the cluster of RFT_TEST_KUBECONFIG: push them to a registry "
            f"that it reads ({', '.join(map(str, archives))})"
        )

    def describe(self) -> dict[str, str]:
        """Return the kubeconfig, as nothing else is known."""
        return {"provider": "existing"}
