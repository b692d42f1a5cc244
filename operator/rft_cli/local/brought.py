"""Completes the folder of a run that ``rft download`` has copied from a cluster: adds the run's configuration
(``run.json``) and its status (``status.yaml``).

A run on this machine has both files in its folder. A run in a cluster has the same data only in the RFTJob.
The commands that read a run's folder need the files. This module also names the parts of a folder that can be
downloaded.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rft_api.effective import effective
from rft_cli.errors import INVALID, UNREADABLE, UserError
from rft_cli.local.reported import of_job
from rft_cli.local.snapshot import previous
from rft_run import atomic
from rft_run.config import DATASET_DIR, EVALUATION_DIR, JobIdentity, RunConfig, dataset_path
from rft_run.folder import ADAPTER, RunFolder
from rft_run.status_file import write_status

PARTS: Mapping[str, tuple[str, ...]] = {
    "adapter": (f"{ADAPTER}/*",),
    "checkpoints": ("checkpoints/*",),
    "rollouts": ("rollouts/*",),
    "records": (
        "metrics.jsonl", "evaluation/*", "preflight.json", "fingerprint.json", "fingerprint/*",
        "rendering.json", "tensorboard/*", "logs/*",
    ),
}  # fmt: skip
"""The parts of a run's folder that ``rft download`` can copy. The key is the name of a part. The value has
the paths of its files in the folder, as patterns of ``fnmatch``."""


def run_config(job: Mapping[str, Any], folder: Path) -> RunConfig:
    """Make the configuration of a run (``run.json``) from its RFTJob in the cluster.

    - ``job``: the RFTJob as a JSON object
    - ``folder``: the folder on this machine with the run's files

    Raises:
        UserError: if this release does not know a field of the RFTJob.
    """
    metadata = job["metadata"]
    run = of_job(metadata["name"], job)
    plan, spec = run.status.plan, run.spec
    optional: dict[str, Any] = {"plan": plan, "device": plan.device, "gpus": plan.gpus} if plan else {}
    if spec.evaluation.dataset is not None:
        optional["evaluation_path"] = dataset_path(spec.evaluation.dataset, EVALUATION_DIR)
    return RunConfig(
        job=JobIdentity(name=metadata["name"], namespace=metadata["namespace"], uid=metadata["uid"]),
        spec=spec,
        effective=(plan.effective if plan else None) or effective(spec, metadata["uid"]),
        run_dir=str(folder),
        dataset_path=dataset_path(spec.dataset, DATASET_DIR),
        **{name: value for name, value in optional.items() if value is not None},
    )


def write_records(folder: Path, job: Mapping[str, Any]) -> None:
    """Write ``run.json`` and ``status.yaml`` of a run into its downloaded folder. ``job`` is the RFTJob as a
    JSON object.

    Raises UserError if this release does not know a field of the RFTJob, or a file cannot be written.
    """
    run, found = RunFolder(folder), of_job(job["metadata"]["name"], job)
    config = run_config(job, folder.resolve())
    try:
        atomic.write_text(run.config, json.dumps(config.dump(), indent=2, ensure_ascii=False) + "\n")
        write_status(run.status, found.status)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror}", UNREADABLE) from error


def refuse_other_run(folder: Path, job: Mapping[str, Any]) -> None:
    """Raise UserError if ``folder``, the target of a download, has files of another run, or any other files.

    An empty folder, and files of an earlier download of ``job``, are allowed.
    """
    config = previous(folder)
    if config is not None and config.job.uid == job["metadata"]["uid"]:
        return
    # A folder with only a lock file is allowed: an earlier command may have failed just after it made the
    # folder and the lock file.
    lock = RunFolder(folder).lock
    if config is None and not (folder.is_dir() and any(path != lock for path in folder.iterdir())):
        return
    files = "has files that are not from a run of this job"
    kind = files if config is None else f"holds another run, of {config.job.name}"
    raise UserError(f"--output {folder}: {kind}; name a folder that is new or empty", INVALID)
