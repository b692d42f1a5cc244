"""The configuration of a node. It is read on the host and inside the node."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.cluster.layout import Layout
from tests.cluster.network import Network

NODE_NAME = "rft-test-node"
API_PORT = 6443


@dataclass(frozen=True)
class NodeSpec:
    """The configuration of one node.

    - ``name`` is the name of the node's cgroup and of the network link's end on the host. Each checkout has
      its own name, with at most 15 characters.
    - ``minor_version`` is the minor version of Kubernetes: 20 for Kubernetes 1.20.
    """

    name: str
    binaries: Path
    minor_version: int
    snapshotter: str
    lacks_sys_resource: bool
    """Whether processes of the node lack the capability CAP_SYS_RESOURCE."""
    network: Network
    layout: Layout

    @property
    def server(self) -> str:
        """The API server's URL. It is the same on the host and in the node."""
        return f"https://{self.network.node_address}:{API_PORT}"

    def to_json(self) -> str:
        return json.dumps(asdict(self), default=str, indent=2)

    @classmethod
    def from_json(cls, text: str) -> "NodeSpec":
        values: dict[str, Any] = json.loads(text)
        values["binaries"] = Path(values["binaries"])
        values["network"] = Network(**values["network"])
        values["layout"] = Layout(**{key: Path(path) for key, path in values["layout"].items()})
        return cls(**values)
