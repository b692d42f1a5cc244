"""The paths of the test cluster's files."""

import os
import zlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """Paths of one checkout's cluster. ``state`` belongs to the checkout, ``cache`` to the user."""

    repository: Path
    state: Path
    cache: Path

    @property
    def name(self) -> str:
        """Name of the kind cluster, or of the node's cgroup and link.

        It is unique per checkout and has at most 15 characters, as the name of a link must.
        """
        return f"rft-{zlib.crc32(str(self.state).encode()):08x}"

    @property
    def choice(self) -> Path:
        """File with the provider of the running cluster (``provider.py``)."""
        return self.state / "provider.json"

    @property
    def kubeconfig(self) -> Path:
        return self.state / "kubeconfig"

    @property
    def record(self) -> Path:
        """File with the node's ``NodeSpec``, written before anything is created and removed last."""
        return self.state / "cluster.json"

    @property
    def lock(self) -> Path:
        return self.state / "lock"

    @property
    def logs(self) -> Path:
        """Folder with a log for each component, and the API server's ``audit.log``. ``down`` keeps it."""
        return self.state / "logs"

    @property
    def config(self) -> Path:
        """Certificates, keys, kubeconfigs and configuration files of the components."""
        return self.state / "config"

    @property
    def data(self) -> Path:
        """Images, container file systems, kubelet's folder, pods' logs."""
        return self.state / "data"

    @property
    def volumes(self) -> Path:
        """The folders behind the ready-made PersistentVolumes."""
        return self.state / "volumes"

    @property
    def tools(self) -> Path:
        """Command-line tools (kubectl, helm) that the PATH lacked."""
        return self.cache / "bin"


def default_layout() -> Layout:
    """Return this checkout's layout.

    It is in ``<repository>/.cluster``, or in the folder ``RFT_CLUSTER_STATE`` for a second cluster. The cache
    is in the folder ``RFT_CACHE``.
    """
    repository = Path(__file__).resolve().parents[2]
    user_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = Path(os.environ.get("RFT_CACHE") or user_cache / "rft-operator")
    state = Path(os.environ.get("RFT_CLUSTER_STATE") or repository / ".cluster")
    return Layout(repository=repository, state=state.absolute(), cache=cache.absolute())
