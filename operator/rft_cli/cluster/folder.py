"""Makes the message about the folder of a job in the cluster: where the folder is, and how to copy it."""

from collections.abc import Mapping
from typing import Any


def way_to(job: Mapping[str, Any], wanted: str) -> str:
    """Return a text that says where the folder of a job is, and how to copy ``wanted`` out of it."""
    name, namespace = job["metadata"]["name"], job["metadata"].get("namespace", "default")
    folder = ((job.get("status") or {}).get("output") or {}).get("folder")
    if not folder:
        return f"{name}: is a job in the cluster that has not written a run's folder yet"
    storage = (job.get("spec") or {}).get("storage") or {}
    return (
        f"{name}: its folder {folder} is on {_volume(storage)}, not on this machine. While its pod runs:"
        f" kubectl cp -n {namespace} -c trainer POD:{folder}/{wanted} {name}/{wanted}"
        f" (POD: kubectl get pods -n {namespace}); afterwards {_afterwards(storage)}. Then name ./{name} here"
    )


def _volume(storage: Mapping[str, Any]) -> str:
    if "ephemeral" in storage:
        return "its pod's own disk"
    claim = (storage.get("persistentVolumeClaim") or {}).get("claimName")
    return f"the claim {claim}" if claim else "the claim that the operator made for the job"


def _afterwards(storage: Mapping[str, Any]) -> str:
    if "ephemeral" in storage:
        return "the folder is deleted with the pod"
    return "start a pod that mounts the claim, and copy the folder from this pod"
