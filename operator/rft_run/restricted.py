"""The security contexts of pods that run the trainer's image. They meet Pod Security's ``restricted`` level.

The operator creates such pods. ``rft`` creates some too, to read a run's volume or to serve its adapter.
"""

from typing import Any

TRAINER_UID = 10001
SHARED_GROUP = 10000


def pod_security(*, assigned: bool) -> dict[str, Any]:
    """Return the security context of a pod.

    Some clusters assign the group of a pod's volumes, and refuse a pod that sets the group itself.
    ``assigned`` says whether the cluster is of this kind.
    """
    groups = {} if assigned else {"fsGroup": SHARED_GROUP, "supplementalGroups": [SHARED_GROUP]}
    return {
        "runAsNonRoot": True,
        **groups,
        # Without this the kubelet checks the group of all files on the volume at every start.
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security(uid: int, *, assigned: bool) -> dict[str, Any]:
    """Return the security context of a container that runs as the user ``uid``.

    Some clusters assign the user, and refuse a container that sets the user itself. ``assigned`` says whether
    the cluster is of this kind. If so, ``uid`` is not used.
    """
    user = {} if assigned else {"runAsUser": uid, "runAsGroup": uid}
    return {
        **user,
        "runAsNonRoot": True,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
