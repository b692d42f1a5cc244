"""``rft report``: writes one page of Markdown about a run."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from rft_api.controls import visible
from rft_api.job import RFTJobSpec
from rft_api.problems import join_path
from rft_api.status import Plan, RFTJobStatus
from rft_cli.errors import UNREADABLE, UserError
from rft_cli.local import records
from rft_cli.local.snapshot import previous
from rft_cli.options import Context, Namespace, connect
from rft_cli.render.console import out, reports_errors, write
from rft_cli.render.curve import points_of_job, points_of_steps
from rft_cli.render.page import ReportedRun, as_markdown
from rft_run.folder import RunFolder


@reports_errors
def report(
    source: Annotated[str, typer.Argument(metavar="NAME|DIR", help="A job, or a run's folder.")],
    output: Annotated[Path | None, typer.Option("--output", help="Write it into this file.")] = None,
    context: Context = None,
    namespace: Namespace = None,
) -> None:
    """Write one page of Markdown about a run: parameters, plan, curve, evaluation, usage, advice, adapter.

    Exit code 1: there is no such job; 2: there is no such folder, or it holds no run.
    """
    text = as_markdown(_of_folder(Path(source)) if _is_path(source) else _of_job(source, context, namespace))
    if output is None:
        write(text)
        return
    try:
        output.write_text(visible(text) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--output {output}: cannot be written: {error.strerror}", UNREADABLE) from error
    out().print(f"written to {output}", markup=False)


def _is_path(source: str) -> bool:
    return Path(source).is_dir() or "/" in source


def _of_folder(folder: Path) -> ReportedRun:
    run, config = RunFolder(folder), previous(folder)
    if config is None:
        raise UserError(
            f"{folder}: holds no {run.config.name}; name a folder that rft run has written, or a job",
            UNREADABLE,
        )
    status = records.status(run.status)
    if status.plan is None or status.plan.effective is None:
        plan = status.plan or Plan(device=config.device, gpus=config.gpus)
        status = status.model_copy(update={"plan": plan.model_copy(update={"effective": config.effective})})
    return ReportedRun(config.job.name, config.spec, status, points_of_steps(records.steps(run.metrics)))


def _of_job(name: str, context: str | None, namespace: str | None) -> ReportedRun:
    job = connect(context, namespace).job(name)
    try:
        spec = RFTJobSpec.model_validate(job["spec"])
        status = RFTJobStatus.model_validate(job.get("status") or {})
    except ValidationError as error:
        field = join_path(error.errors()[0]["loc"])
        raise UserError(
            f"{name}: {field} is not known to this rft; use the version of rft that the operator has"
        ) from error
    return ReportedRun(name, spec, status, points_of_job(job))
