"""Data about the cluster and a job's namespace that the manifests of child objects depend on."""

from dataclasses import dataclass
from typing import Literal

REPLACES_PODS = (1, 29)
"""The first version of Kubernetes whose Jobs wait for the end of a pod before they create the next one."""
NATIVE_SIDECARS = (1, 32)
"""From this version of the API server on, all nodes support native sidecars. Nodes support them from
Kubernetes 1.29 on. A node may be three minor versions older than the API server."""
AssignsUsers = Literal["auto", "true", "false"]
"""The setting that says whether the cluster assigns user IDs to pods. With ``auto``, the answer is true if
the cluster is OpenShift, else false."""


@dataclass(frozen=True)
class Platform:
    """What the cluster and a job's namespace support for pods, and what they require of pods."""

    cpu_limit: bool = False
    """Whether the namespace refuses containers without a CPU limit."""
    sidecars: bool = False
    """Whether all nodes support native sidecars: the API server has the version ``NATIVE_SIDECARS`` or a
    newer one."""
    replaces_pods: bool = False
    """Whether a Job waits for the end of a pod before it creates the next one: the API server has the version
    ``REPLACES_PODS`` or a newer one."""
    assigns_users: bool = False
    """Whether the cluster assigns user and group IDs to pods, and refuses others, as OpenShift does."""


def is_at_least(version: dict[str, str], wanted: tuple[int, int]) -> bool:
    """Return whether the API server has the version ``wanted`` or a newer one. ``version`` is its answer to a
    request for its version.

    Clouds add a sign to the minor version, such as ``29+``. A version that is not a number counts as older.
    """
    major, minor = version.get("major", ""), version.get("minor", "").rstrip("+")
    return major.isdigit() and minor.isdigit() and (int(major), int(minor)) >= wanted
