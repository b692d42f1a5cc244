"""Finds a run's folder on this machine, or says how to copy it here."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rft_cli.options import connect
from rft_cli.render.console import INVALID, UNREADABLE, UserError

_JOB_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


def run_folder(source: str, context: str | None, namespace: str | None, wanted: str) -> Path:
    """Return ``source`` if it is a folder on this machine.

    ``wanted`` is what the command reads in it, such as ``rollouts``.

    Raises:
        UserError: there is no such folder. For a job in the cluster, whose folder is on a volume, the message
            says how to copy it.
    """
    path = Path(source)
    if path.is_dir():
        return path
    if not _JOB_NAME.fullmatch(source):
        raise UserError(f"{source}: there is no such folder", UNREADABLE)
    raise UserError(way_to(connect(context, namespace).job(source), wanted), INVALID)


def way_to(job: Mapping[str, Any], wanted: str) -> str:
    """Return a text that says where a job's folder is, and how to copy the ``wanted`` part of it."""
    name, namespace = job["metadata"]["name"], job["metadata"].get("namespace", "default")
    folder = ((job.get("status") or {}).get("output") or {}).get("folder")
    if not folder:
        return f"{name}: is a job in the cluster that has not written a run's folder yet"
    storage = (job.get("spec") or {}).get("storage") or {}
    return (
        f"{name}: its folder {folder} is on {_volume(storage)}, not seen from here. While its pod runs:"
        f" kubectl cp -n {namespace} -c trainer POD:{folder}/{wanted} {name}/{wanted}"
        f" (POD: kubectl get pods -n {namespace}); afterwards {_afterwards(storage)}. Then name ./{name} here"
    )


def _volume(storage: Mapping[str, Any]) -> str:
    if "ephemeral" in storage:
        return "its pod's own disk"
    claim = (storage.get("persistentVolumeClaim") or {}).get("claimName")
    return f"the claim {claim}" if claim else "the claim made for the job"


def _afterwards(storage: Mapping[str, Any]) -> str:
    if "ephemeral" in storage:
        return "it is gone with the pod"
    return "start a pod that mounts the claim, and copy from there"
