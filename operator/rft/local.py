"""Checks, plans and runs an RFTJob on this machine."""

import subprocess
import sys
import tempfile
from pathlib import Path

from rft_api.dumper import dump
from rft_api.job import RFTJob
from rft_api.status import Plan
from rft_api.validation import check
from rft_cli.errors import INVALID, UserError
from rft_cli.local import manifest, reported
from rft_cli.local.reported import ReportedRun
from rft_cli.local.shapes import shape_for
from rft_planner.container import memory_check_disabled
from rft_planner.plan import Unplannable
from rft_planner.plan import plan as planned


def load(path: str | Path) -> RFTJob:
    """Return the RFTJob in a file that has exactly one, as a cluster takes it.

    ConfigMaps in the same file are not part of it, and ``python.file`` is a field of ``rft`` alone. Raises
    RFTError if the job is missing or not valid.
    """
    document = manifest.the_job(Path(path))
    job, problems = check(document.body)
    if job is None:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise UserError(f"{document.source}: is not valid:\n{lines}", INVALID)
    return job


def validate(job: RFTJob) -> list[str]:
    """Return what is wrong with a job: each problem names field, value, what is allowed and the correction.

    An RFTJob that was built in Python has valid fields. This also checks the rules across fields.
    """
    return [str(problem) for problem in check(job.dump()).problems]


def plan(job: RFTJob) -> Plan:
    """Return what a job would request: GPUs, CPU, memory, and why. The number of rows is not known here.

    Raises RFTError if no plan can be made.
    """
    read = shape_for(job.spec.model, None, hub=False)
    try:
        return planned(
            job.spec,
            "",
            shape=read.shape if read is not None else None,
            force_memory=memory_check_disabled(job.metadata.annotations),
        )
    except Unplannable as error:
        raise UserError(str(error)) from error


def run_locally(job: RFTJob, folder: str | Path) -> ReportedRun:
    """Train on this machine until the end, as ``rft run`` does, and return what the run's report is made of.

    A folder that holds a stopped run of the same job is resumed. Relative paths in the job are relative to
    the working folder. Progress is printed. Raises RFTError if the run does not complete.
    """
    with tempfile.NamedTemporaryFile("w", dir=Path.cwd(), prefix=".rft-", suffix=".yaml") as file:
        file.write(dump({key: value for key, value in job.dump().items() if key != "status"}))
        file.flush()
        # -P: modules in the working folder, which may come with a stranger's rows, are never imported.
        command = [sys.executable, "-P", "-m", "rft_cli.main", "run", file.name, "--output", str(folder)]
        ended = subprocess.run(command, check=False)
    if ended.returncode != 0:
        raise UserError(f"{folder}: the run ended with exit code {ended.returncode}", ended.returncode)
    return reported.of_folder(Path(folder))
