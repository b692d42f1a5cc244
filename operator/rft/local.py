"""Functions that load, check, plan and run an RFTJob on this machine, without a cluster."""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from rft_api.dumper import dump
from rft_api.job import RFTJob
from rft_api.status import Plan
from rft_api.validation import check
from rft_cli.errors import INVALID, UserError
from rft_cli.local import manifest, records, reported
from rft_cli.local.reported import ReportedRun
from rft_cli.local.shapes import shape_for
from rft_planner.container import memory_check_disabled
from rft_planner.plan import Unplannable
from rft_planner.plan import plan as planned
from rft_run.folder import RunFolder
from rft_run.steps import StepRecord

POLL_SECONDS = 0.5
"""Time in seconds after which ``run_locally`` checks again whether the run has written records of new
steps."""


def load(path: str | Path) -> RFTJob:
    """Return the RFTJob in the manifest file ``path``. It must be valid for a cluster, so it must have
    ``spec.storage``.

    ConfigMaps in the file are ignored. The field ``python.file`` is refused, because only the command ``rft``
    can read it. Raises RFTError if the file cannot be read, if it has no RFTJob or more than one, or if the
    RFTJob is not valid.
    """
    document = manifest.the_job(Path(path))
    job, problems = check(document.body)
    if job is None:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise UserError(f"{document.source}: is not valid:\n{lines}", INVALID)
    return job


def validate(job: RFTJob) -> list[str]:
    """Return the problems of an RFTJob as texts. The list is empty if the job is valid.

    Each text names the field, its value, what is allowed and the correction. The constructor of RFTJob checks
    only single fields. This function also checks the rules about several fields.
    """
    return [str(problem) for problem in check(job.dump()).problems]


def plan(job: RFTJob) -> Plan:
    """Return the plan of a job: the GPUs, CPU and memory that it needs, and the reasons for these numbers.

    The dataset is not read, so estimates that depend on the number of rows are missing. Raises RFTError if
    the job cannot be planned, for example because it fits on no number of GPUs.
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


def run_locally(
    job: RFTJob,
    folder: str | Path,
    on_step: Callable[[StepRecord], None] | None = None,
    *,
    push_to: Sequence[str] = (),
    public: bool = False,
) -> ReportedRun:
    """Train a job on this machine until the run ends, as ``rft run`` does. Return the spec, status, steps and
    evaluations of the run.

    - ``folder``: the run's folder. If it has a stopped run of the same job, this run is resumed.
    - ``on_step``: called with the record of each step, soon after the end of the step. In a resumed run it is
      first called with the records of the earlier steps.
    - ``push_to``: the destinations to which the adapter may be pushed. If the job has ``spec.output``, its
      destination must be among them.
    - ``public``: whether this destination may be a public repository.

    Relative paths in the job start at the current working directory. Progress is printed. If ``on_step``
    raises an exception, or if Ctrl-C raises KeyboardInterrupt, the run saves a checkpoint and stops. Then the
    exception is raised again. Raises RFTError if the run does not complete.
    """
    metrics = RunFolder(Path(folder)).metrics
    with tempfile.NamedTemporaryFile("w", dir=Path.cwd(), prefix=".rft-", suffix=".yaml") as file:
        file.write(dump({key: value for key, value in job.dump().items() if key != "status"}))
        file.flush()
        # -P: Python imports no modules from the working directory, which may have a stranger's files.
        command = [sys.executable, "-P", "-m", "rft_cli.main", "run", file.name, "--output", str(folder)]
        command += [f"--push-to={destination}" for destination in push_to]
        command += ["--public"] if public else []
        with _stopped_at_errors(command) as process:
            last, size, ended = 0, 0, False
            while not ended:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(POLL_SECONDS)
                ended = process.returncode is not None
                # The metrics file of a long run takes a while to read, so it is read only after a change.
                before, size = size, metrics.stat().st_size if metrics.exists() else 0
                if on_step is not None and (ended or size != before):
                    last = _deliver(metrics, last, on_step)
    if process.returncode != 0:
        raise UserError(f"{folder}: the run ended with exit code {process.returncode}", process.returncode)
    return reported.of_folder(Path(folder))


def _deliver(metrics: Path, last: int, on_step: Callable[[StepRecord], None]) -> int:
    """Call ``on_step`` with the record of each step after step ``last``. ``metrics`` is the file with the
    records of all steps.

    Return the number of the newest step, or ``last`` if there is no newer step.
    """
    for record in records.steps(metrics):
        if record.step > last:
            last = record.step
            on_step(record)
    return last


@contextmanager
def _stopped_at_errors(command: Sequence[str]) -> Iterator["subprocess.Popen[bytes]"]:
    """Start ``command``, a command line of ``rft run``, and yield its process. If the ``with`` block raises
    an exception, send SIGTERM to the process, wait until it ends, and raise the exception again.

    ``subprocess.run`` is not used: after an interrupt it waits only a quarter of a second, and then kills the
    process. The trainer needs more time to write its checkpoint.
    """
    process = subprocess.Popen(command)
    try:
        yield process
    except BaseException:
        # This sends SIGTERM and not SIGINT: a terminal or a notebook sends SIGINT to the whole process group,
        # and a second SIGINT would kill the trainer.
        process.terminate()
        process.wait()
        raise
