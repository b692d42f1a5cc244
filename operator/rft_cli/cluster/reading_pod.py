"""Makes the manifest of the pod that reads a job's run folder for ``rft``, and interprets its status."""

import inspect
import secrets
from collections.abc import Mapping
from typing import Any

from rft_api import API_VERSION, KIND
from rft_cli.cluster import reader
from rft_cli.errors import INVALID, UserError
from rft_run.config import TRAINER_CONTAINER
from rft_run.restricted import TRAINER_UID, container_security, pod_security

CONTAINER = "reader"
FOLDER = "/folder"
"""Where the pod mounts the run's folder."""
SECONDS = 3600
"""The cluster ends the pod after this number of seconds, also if ``rft`` was killed and cannot delete it."""
SOURCE_VARIABLE = "RFT_READER"
LABEL_NAME, LABEL_JOB = "app.kubernetes.io/name", "app.kubernetes.io/instance"
READER_NAME = "rft-reader"
CPU, MEMORY = "100m", "128Mi"
_FROM_THE_JOB = ("imagePullSecrets", "tolerations", "runtimeClassName", "schedulerName")
"""Fields of the trainer's pod that the reading pod has too, so that it can run on the same node."""
_HOPELESS = ("ErrImageNeverPull", "InvalidImageName", "CreateContainerConfigError")

Body = dict[str, Any]


def command(action: str, *arguments: str) -> list[str]:
    """Return the command that runs ``rft_cli.cluster.reader`` in the pod with these arguments.

    The source of ``reader`` is in an environment variable of the pod. If the command had the source, the URL
    of the request would be longer than some proxies allow.
    """
    return ["sh", "-c", f'exec python -c "${SOURCE_VARIABLE}" "$@"', "rft", action, *arguments]


def selector(job: Mapping[str, Any]) -> str:
    """Return the label selector of all pods that read the folder of a job."""
    return f"{LABEL_NAME}={READER_NAME},{LABEL_JOB}={job['metadata']['name']}"


def claim_of(job: Mapping[str, Any]) -> str | None:
    """Return the name of the PersistentVolumeClaim with the run's folder of a job.

    Return None if the folder is on the disk of the job's pod.
    """
    storage = (job.get("spec") or {}).get("storage") or {}
    given = (storage.get("persistentVolumeClaim") or {}).get("claimName")
    return given or (job["status"]["jobName"] if "claimTemplate" in storage else None)


def folder_mount(job: Mapping[str, Any], path: str) -> Body:
    """Return a container's volume mount, which mounts the run's folder at ``path``, read-only.

    Only this folder is mounted, because the volume may have folders of other jobs.

    The run's folder on the claim is ``NAMESPACE/NAME``, where NAME is the name of the job's child Job. The
    operator uses the same path. The path in the RFTJob's status is not used, because the trainer reports it,
    and could report the folder of another run.
    """
    inside = f"{job['metadata']['namespace']}/{job['status']['jobName']}"
    return {"name": "runs", "mountPath": path, "subPath": inside, "readOnly": True}


def trainer_pod(job: Mapping[str, Any], child: Mapping[str, Any] | None, image: str | None) -> Body:
    """Return a pod spec with the image, user IDs and tolerations of the trainer's pod.

    - ``child``: the job's child Job, whose pod spec is used. None if the Job was deleted after its TTL; then
      the image is taken from the RFTJob.
    - ``image``: the image to use in place of the trainer's image. None: no other image.

    Raises:
        UserError: if no image is known.
    """
    found = dict(child["spec"]["template"]["spec"]) if child is not None else {}
    containers: list[Body] = found.get("containers") or []
    main: Body = next((each for each in containers if each["name"] == TRAINER_CONTAINER), {})
    template = (job.get("spec") or {}).get("template") or {}
    chosen = image or main.get("image") or template.get("image")
    if chosen is None:
        raise UserError(
            f"{job['metadata']['name']}: its Job is deleted, so its image is not known; name an image"
            " with --image",
            INVALID,
        )
    policy = main.get("imagePullPolicy") or template.get("imagePullPolicy")
    return {
        **{key: found[key] for key in _FROM_THE_JOB if found.get(key)},
        "securityContext": found.get("securityContext") or pod_security(assigned=False),
        "containers": [
            {
                "image": chosen,
                **({"imagePullPolicy": policy} if policy else {}),
                "securityContext": main.get("securityContext")
                or container_security(TRAINER_UID, assigned=False),
            }
        ],
    }


def reading_pod(job: Mapping[str, Any], claim: str, trainer: Body) -> Body:
    """Return the manifest of a pod that mounts the run's folder read-only, and sleeps. The pod has no rights
    in the Kubernetes API.

    - ``claim``: the name of the PersistentVolumeClaim with the folder
    - ``trainer``: the pod spec that ``trainer_pod`` returns
    """
    metadata = job["metadata"]
    [container] = trainer["containers"]
    amounts = {"cpu": CPU, "memory": MEMORY}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            # rft makes the name, so that it can delete the pod even if the API server's answer is lost.
            "name": f"{READER_NAME}-{secrets.token_hex(5)}",
            "labels": {LABEL_NAME: READER_NAME, LABEL_JOB: metadata["name"]},
            "ownerReferences": [owner_reference(job)],
        },
        "spec": {
            **trainer,
            "restartPolicy": "Never",
            "activeDeadlineSeconds": SECONDS,
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "affinity": {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [_beside(job)]}},
            "containers": [
                {
                    **container,
                    "name": CONTAINER,
                    "command": ["sleep", str(SECONDS)],
                    "env": [
                        {"name": SOURCE_VARIABLE, "value": inspect.getsource(reader)},
                        {"name": "PYTHONDONTWRITEBYTECODE", "value": "1"},
                    ],
                    "resources": {"requests": amounts, "limits": amounts},
                    "volumeMounts": [folder_mount(job, FOLDER)],
                }
            ],
            "volumes": [{"name": "runs", "persistentVolumeClaim": {"claimName": claim}}],
        },
    }


def owner_reference(job: Mapping[str, Any]) -> Body:
    """Return an owner reference to the RFTJob. When the RFTJob is deleted, Kubernetes also deletes an object
    that has this reference.

    The reference sets neither ``controller`` nor ``blockOwnerDeletion``, because users may lack the rights
    for them.
    """
    metadata = job["metadata"]
    return {"apiVersion": API_VERSION, "kind": KIND, "name": metadata["name"], "uid": metadata["uid"]}


def _beside(job: Mapping[str, Any]) -> Body:
    """Return a pod affinity term that prefers the node of the job's own pod. Some volumes can be mounted on
    one node only.
    """
    term = {
        "labelSelector": {"matchLabels": {"rft.dev/job-uid": job["metadata"]["uid"]}},
        "topologyKey": "kubernetes.io/hostname",
    }
    return {"weight": 100, "podAffinityTerm": term}


def is_over(pod: Mapping[str, Any]) -> bool:
    """Return whether a pod has ended."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Return whether commands can be run in the pod that reads a run's folder.

    Raises:
        UserError: if the pod has ended, or cannot start.
    """
    status = pod.get("status") or {}
    if is_over(pod):
        raise UserError(f"the pod that reads the volume has ended: {why_it_waits(pod)}", INVALID)
    containers: list[Body] = status.get("containerStatuses") or [{}]
    state: Body = containers[0].get("state") or {}
    if (state.get("waiting") or {}).get("reason") in _HOPELESS:
        raise UserError(f"the pod that reads the volume cannot start: {why_it_waits(pod)}", INVALID)
    return "running" in state


def why_it_waits(pod: Mapping[str, Any]) -> str:
    """Return a text that says why a pod does not run, from the pod's status."""
    status = pod.get("status") or {}
    states = [each.get("state") or {} for each in status.get("containerStatuses") or []]
    waiting = [state["waiting"] for state in states if state.get("waiting")]
    failed = [each for each in status.get("conditions") or [] if each.get("status") == "False"]
    ended = [status] if status.get("reason") or status.get("message") else []
    for found in (*ended, *waiting, *failed):
        parts = [str(found[key]) for key in ("reason", "message") if found.get(key)]
        if parts:
            return ": ".join(parts)
    return f"its phase is {status.get('phase', 'Pending')}"
