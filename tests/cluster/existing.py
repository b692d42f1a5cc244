"""A cluster that somebody else runs."""

from pathlib import Path

from tests.cluster.shell import ClusterError, say


class ExistingCluster:
    """Named by ``RFT_TEST_KUBECONFIG``; neither started nor stopped here."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig

    def up(self) -> None:
        """Check that the kubeconfig is there."""
        if not self.kubeconfig.is_file():
            raise ClusterError(f"RFT_TEST_KUBECONFIG names no file: {self.kubeconfig}")

    def down(self) -> None:
        """Leave it running."""
        say("the cluster of RFT_TEST_KUBECONFIG is left running")

    def load_images(self, archives: list[Path]) -> None:
        """Refuse: its nodes pull from a registry."""
        raise ClusterError(
            "cannot load images into the cluster of RFT_TEST_KUBECONFIG: push them to a registry "
            f"that it reads ({', '.join(map(str, archives))})"
        )

    def describe(self) -> dict[str, str]:
        """Nothing is known beyond the kubeconfig."""
        return {"provider": "existing"}
