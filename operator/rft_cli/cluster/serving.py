"""Makes the Deployment and the Service that serve the adapter of a job in a cluster."""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from rft_cli.cluster.reading_pod import FOLDER, LABEL_JOB, LABEL_NAME, claim_of, folder_mount, owner_reference
from rft_cli.errors import INVALID, UserError
from rft_run.config import TRAINER_CONTAINER

PORT = 8000
SERVER_NAME = "rft-server"
_RUNS = "runs"
"""Name of the volume with the folders of runs."""
_VOLUMES = ("trainer-tmp", "scratch", "shm", "hub")
"""Volumes of the trainer's pod that the server needs too. They have no rows, code, Secrets or tokens."""
_VARIABLES = (
    "HOME", "TMPDIR", "USER", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE",
)  # fmt: skip
"""Environment variables that the server gets from the trainer, besides the variables of the hub's client.

With these variables, the server finds its files and reaches the hub. They contain no keys of trackers. The
same names in lower case are copied too, because some programs read only these."""
_HUB_PREFIX = "HF_"
_PLACEMENT = (
    "imagePullSecrets", "tolerations", "nodeSelector", "runtimeClassName", "schedulerName",
    "securityContext", "resourceClaims",
)  # fmt: skip
_OF_THE_CONTAINER = ("image", "imagePullPolicy", "securityContext")

Body = dict[str, Any]


def service_name(job: Mapping[str, Any]) -> str:
    """Return the name of the Deployment and the Service for a job. Both have the same name.

    The name begins with ``serve-``, because the name of a Service must not begin with a digit. A job's name
    may begin with one.
    """
    return f"serve-{job['metadata']['name']}"


def server_objects(
    job: Mapping[str, Any], child: Mapping[str, Any], command: Sequence[str], gpus: int, gpu_resource: str
) -> list[Body]:
    """Return the Service and the Deployment of a server for a job's adapter.

    Both are deleted with the RFTJob. The server's pod has no rights in the Kubernetes API.

    - ``child``: the job's child Job. The server gets the same image, user IDs, resources and nodes.
    - ``command``: the command that starts the server
    - ``gpus``: the number of GPUs of the server
    - ``gpu_resource``: the extended resource that counts GPUs in the child Job

    If the job gets its GPUs from a resource claim, the server gets the same claim.

    Raises:
        UserError: if the job's folder is on no volume.
    """
    claim = claim_of(job)
    if claim is None:
        name = job["metadata"]["name"]
        raise UserError(
            f"{name}: its folder is on its pod's own disk, so no other pod can serve its adapter", INVALID
        )
    pod = _pod(job, child, claim, command, {gpu_resource: str(gpus)})
    labels = {LABEL_NAME: SERVER_NAME, LABEL_JOB: job["metadata"]["name"]}
    metadata = {
        "name": service_name(job),
        "namespace": job["metadata"]["namespace"],
        "labels": labels,
        "ownerReferences": [owner_reference(job)],
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": 1,
            # With rolling updates, the new pod would wait for ever for the GPUs of the old pod.
            "strategy": {"type": "Recreate"},
            # After the default of ten minutes, the download of a large model would count as a failure.
            "progressDeadlineSeconds": 3600,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }
    # Kubernetes 1.20 answers a server-side apply with 500 if a port has no protocol, a key of the list.
    port = {"name": "http", "port": PORT, "targetPort": "http", "protocol": "TCP"}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"selector": labels, "ports": [port]},
    }
    # The Service is created first: if the API server refuses it, no pod of the Deployment uses GPUs.
    return [service, deployment]


def _pod(
    job: Mapping[str, Any],
    child: Mapping[str, Any],
    claim: str,
    command: Sequence[str],
    amounts: Mapping[str, str],
) -> Body:
    trainer: Body = child["spec"]["template"]["spec"]
    main = next(each for each in trainer["containers"] if each["name"] == TRAINER_CONTAINER)
    of_trainer: list[Body] = main.get("volumeMounts", [])
    mounts = [mount for mount in of_trainer if mount["name"] in _VOLUMES]
    mounts += _model_mounts(job["spec"]["model"]["name"], of_trainer)
    names = {mount["name"] for mount in mounts} - {_RUNS}
    volumes = [volume for volume in trainer.get("volumes", []) if volume["name"] in names]
    nodes = (trainer.get("affinity") or {}).get("nodeAffinity")
    container = {
        **{key: main[key] for key in _OF_THE_CONTAINER if key in main},
        "name": "server",
        "command": list(command),
        "env": [variable for variable in main.get("env", []) if _is_needed(variable["name"])],
        "resources": _resources(main.get("resources") or {}, amounts),
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "readinessProbe": {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 5},
        "volumeMounts": [folder_mount(job, FOLDER), *mounts],
    }
    return {
        **{key: trainer[key] for key in _PLACEMENT if trainer.get(key)},
        # Affinity to pods is not copied: it may keep the server away from the job's own pod, or place it near
        # pods of others.
        **({"affinity": {"nodeAffinity": nodes}} if nodes else {}),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "containers": [container],
        "volumes": [{"name": _RUNS, "persistentVolumeClaim": {"claimName": claim}}, *volumes],
    }


def _model_mounts(model: str, mounts: Sequence[Body]) -> list[Body]:
    """Return read-only mounts of the volumes with the base model, or none for a model on the hub.

    ``mounts`` are the mounts of the trainer. If the model is on the volume of runs, only the model's folder
    is mounted, because this volume may have folders of other jobs. Every other volume is mounted as in the
    trainer, because files of a model may be links to files outside of the model's folder.
    """
    path = PurePosixPath(model)
    found: list[Body] = []
    for mount in mounts:
        if mount["name"] in _VOLUMES or not path.is_relative_to(mount["mountPath"]):
            continue
        if mount["name"] == _RUNS:
            inside = str(path.relative_to(mount["mountPath"]))
            mount = {**mount, "mountPath": model, "subPath": inside}
        found.append({**mount, "readOnly": True})
    return found


def _is_needed(variable: str) -> bool:
    return variable.upper() in _VARIABLES or variable.startswith(_HUB_PREFIX)


def _resources(of_trainer: Mapping[str, Any], amounts: Mapping[str, str]) -> Body:
    """Return the trainer's requests, limits and resource claims, with other amounts for some resources.

    ``amounts`` has the new amount of a resource, by the resource's name. A resource that the trainer neither
    requests nor limits is not added.
    """
    found = dict(of_trainer)
    for part in ("requests", "limits"):
        given: Mapping[str, str] = of_trainer.get(part) or {}
        found[part] = {name: amounts.get(name, amount) for name, amount in given.items()}
    return found
