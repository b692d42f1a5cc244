"""Makes the error message for a job in the cluster whose run's folder is only on its pod's own disk."""

from collections.abc import Mapping
from typing import Any


def on_its_pods_disk(job: Mapping[str, Any]) -> str:
    """Return an error message for a job with ``spec.storage.ephemeral``: the run's folder is on the pod's own
    disk, so ``rft`` cannot read it. The message says how to copy the folder with kubectl.
    """
    name, namespace = job["metadata"]["name"], job["metadata"]["namespace"]
    folder = job["status"]["output"]["folder"]
    return (
        f"{name}: its folder {folder} is on its pod's own disk, and is deleted with the pod. While the pod"
        f" runs, copy the folder: kubectl cp -n {namespace} -c trainer POD:{folder} runs/{name}"
        f" (POD: kubectl get pods -n {namespace}). Then pass runs/{name} to rft in place of {name}"
    )
