"""The security contexts of pods that run the trainer's image. They meet Pod Security's ``restricted`` level.

The operator makes such pods, and ``rft`` makes some that read a run's volume or serve its adapter.
"""

from typing import Any

TRAINER_UID = 10001
SHARED_GROUP = 10000


def pod_security(*, assigned: bool) -> dict[str, Any]:
    """Return the security context of a pod.

    ``assigned`` says whether the cluster assigns the user and the group of volumes, and refuses fixed ones.
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

    ``assigned`` says whether the cluster assigns the user, and refuses a fixed one.
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
