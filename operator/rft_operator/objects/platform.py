"""Facts about the cluster and the namespace of an RFTJob that change how its child Job and pod are built."""

from dataclasses import dataclass
from typing import Literal

REPLACES_PODS = (1, 29)
"""The first Kubernetes version whose Job controller creates the next pod only after the last one has ended
(``podReplacementPolicy``)."""
NATIVE_SIDECARS = (1, 32)
"""The first version of the API server with which all nodes support native sidecars. Nodes support them from
Kubernetes 1.29 on, and a node may be three minor versions older than the API server."""
AssignsUsers = Literal["auto", "true", "false"]
"""The operator's setting that says whether the cluster assigns user IDs to pods. ``auto`` means: true if the
cluster is OpenShift, else false."""


@dataclass(frozen=True)
class Platform:
    """The features and requirements of the cluster, and of an RFTJob's namespace, that its pod depends on."""

    cpu_limit: bool = False
    """Whether the namespace refuses containers without a CPU limit."""
    sidecars: bool = False
    """Whether all nodes support native sidecars. They do if the API server has the version
    ``NATIVE_SIDECARS`` or a newer one."""
    replaces_pods: bool = False
    """Whether the Job controller creates the next pod only after the last one has ended. It does if the API
    server has the version ``REPLACES_PODS`` or a newer one."""
    assigns_users: bool = False
    """Whether the cluster assigns user and group IDs to pods, and refuses others, as OpenShift does."""


def is_at_least(version: dict[str, str], wanted: tuple[int, int]) -> bool:
    """Return whether the API server has the version ``wanted`` (major, minor) or a newer one. ``version`` is
    the server's response to ``GET /version``, with the texts ``major`` and ``minor``.

    Cloud providers add a sign to the minor version, such as ``29+``. If a text is not a number, return False.
    """
    major, minor = version.get("major", ""), version.get("minor", "").rstrip("+")
    return major.isdigit() and minor.isdigit() and (int(major), int(minor)) >= wanted
