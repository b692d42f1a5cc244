"""Makes the message for a job in the cluster whose folder is on no persistent volume."""

from collections.abc import Mapping
from typing import Any


def on_its_pods_disk(job: Mapping[str, Any]) -> str:
    """Return a text that says how to copy the folder of a job whose ``storage`` is ``ephemeral``."""
    name, namespace = job["metadata"]["name"], job["metadata"]["namespace"]
    folder = job["status"]["output"]["folder"]
    return (
        f"{name}: its folder {folder} is on its pod's own disk, and is deleted with the pod. While the pod"
        f" runs, copy the folder: kubectl cp -n {namespace} -c trainer POD:{folder} runs/{name}"
        f" (POD: kubectl get pods -n {namespace}). Then pass runs/{name} to rft in place of {name}"
    )
