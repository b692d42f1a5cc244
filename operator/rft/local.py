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
    """Return the RFTJob in a file that has exactly one, in the form that a cluster accepts.

    ConfigMaps in the same file are not returned. The field ``python.file`` is refused, because only the
    commands of ``rft`` know it. Raises RFTError if the job is missing or not valid.
    """
    document = manifest.the_job(Path(path))
    job, problems = check(document.body)
    if job is None:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise UserError(f"{document.source}: is not valid:\n{lines}", INVALID)
    return job


def validate(job: RFTJob) -> list[str]:
    """Return the problems of a job. Each names the field, the value, what is allowed and the correction.

    The fields of an RFTJob that was built in Python are already valid. This function also checks the rules
    across fields.
    """
    return [str(problem) for problem in check(job.dump()).problems]


def plan(job: RFTJob) -> Plan:
    """Return the plan of a job: GPUs, CPU, memory, and the reasons. The plan does not use the number of rows.

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
    """Train on this machine until the end, as ``rft run`` does. Return the data of the run's report.

    If ``folder`` has a stopped run of the same job, this run is resumed. Relative paths in the job refer to
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
