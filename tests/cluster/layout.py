"""The paths of the test cluster's files."""

import os
import zlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """Paths of the files of one checkout's test cluster.

    ``state`` is the checkout's own folder. ``cache`` is shared by all checkouts of the user.
    """

    repository: Path
    state: Path
    cache: Path

    @property
    def name(self) -> str:
        """Name of the kind cluster. Without kind it is the name of the node's cgroup and of the node's
        network link.

        Each checkout has its own name. The name has at most 15 characters, as Linux requires for links.
        """
        return f"rft-{zlib.crc32(str(self.state).encode()):08x}"

    @property
    def choice(self) -> Path:
        """File that names the provider of the running cluster (``provider.py``)."""
        return self.state / "provider.json"

    @property
    def kubeconfig(self) -> Path:
        return self.state / "kubeconfig"

    @property
    def record(self) -> Path:
        """File with the node's ``NodeSpec``. ``up`` creates it first, and ``down`` removes it last."""
        return self.state / "cluster.json"

    @property
    def lock(self) -> Path:
        return self.state / "lock"

    @property
    def logs(self) -> Path:
        """Folder with the components' logs and the API server's ``audit.log``. ``down`` keeps it."""
        return self.state / "logs"

    @property
    def config(self) -> Path:
        """Folder with the components' certificates, keys, kubeconfigs and configuration files."""
        return self.state / "config"

    @property
    def data(self) -> Path:
        """Folder with images, file systems of containers, the kubelet's files and logs of pods."""
        return self.state / "data"

    @property
    def volumes(self) -> Path:
        """Folder with one folder for each PersistentVolume."""
        return self.state / "volumes"

    @property
    def tools(self) -> Path:
        """Folder for kubectl and helm, if they are not on the PATH."""
        return self.cache / "bin"


def default_layout() -> Layout:
    """Return this checkout's layout.

    - ``state`` is the folder in the variable ``RFT_CLUSTER_STATE``, else ``<repository>/.cluster``. A second
      cluster of a checkout needs another folder.
    - ``cache`` is the folder in the variable ``RFT_CACHE``, else a folder in the user's cache.
    """
    repository = Path(__file__).resolve().parents[2]
    user_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = Path(os.environ.get("RFT_CACHE") or user_cache / "rft-operator")
    state = Path(os.environ.get("RFT_CLUSTER_STATE") or repository / ".cluster")
    return Layout(repository=repository, state=state.absolute(), cache=cache.absolute())
