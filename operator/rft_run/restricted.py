"""Makes the security contexts of pods that run the trainer's image. They meet the ``restricted`` level of the
Pod Security Standards.

The operator creates such pods for training. ``rft`` creates them to read a run's volume.
"""

from typing import Any

TRAINER_UID = 10001
SHARED_GROUP = 10000


def pod_security(*, assigned: bool) -> dict[str, Any]:
    """Return the security context of a pod, as a JSON object.

    Some clusters assign the group that owns a pod's volumes, and refuse a pod that sets this group itself.
    For such a cluster, ``assigned`` must be true. The security context then has no group.
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
    """Return the security context of a container that runs as the user ``uid``, as a JSON object.

    Some clusters assign the user, and refuse a container that sets the user itself. For such a cluster,
    ``assigned`` must be true. Then ``uid`` is not used.
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
