"""``rft plan``: shows the resources and the time that a job would need, before it runs."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from rft_api.defaults import NO_DEFAULTS, SECTION, JobDefaults, inherit, read_defaults
from rft_api.job import RFTJob, RFTJobSpec
from rft_api.loader import UnreadableManifest, load_file
from rft_api.problems import InvalidManifest
from rft_api.status import Plan
from rft_cli.errors import INVALID, UNREADABLE, UserError
from rft_cli.local.manifest import Manifest, load
from rft_cli.local.rows import rows_of
from rft_cli.local.shapes import shape_for
from rft_cli.local.sweep import ACCELERATOR, Line, sweep_of, with_value
from rft_cli.render.console import WIDE_ENOUGH, err, out, reports_errors, write
from rft_cli.render.plans import entry, table, text, without_seed
from rft_planner.accelerators import ACCELERATORS
from rft_planner.container import memory_check_disabled
from rft_planner.estimate import RowCounts
from rft_planner.inheriting import asked_for, planned
from rft_planner.overrides import contradiction
from rft_planner.plan import Unplannable


class PlanFormat(StrEnum):
    """The values of the option ``-o`` of ``rft plan``."""

    TEXT = "text"
    JSON = "json"
    YAML = "yaml"


@reports_errors
def plan(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Manifest with one RFTJob; - reads stdin.")],
    output: Annotated[
        PlanFormat, typer.Option("--format", "-o", help="text, json or yaml.")
    ] = PlanFormat.TEXT,
    accelerator: Annotated[
        str | None, typer.Option("--accelerator", help="Plan for this kind of GPU, e.g. nvidia-l40s-48gb.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="The model's config.json, or a folder with one.")
    ] = None,
    hub: Annotated[bool, typer.Option("--hub", help="Fetch the model's config.json from the hub.")] = False,
    dataset: Annotated[Path | None, typer.Option(help="File with rows. It replaces spec.dataset.")] = None,
    evaluation_dataset: Annotated[
        Path | None, typer.Option(help="File with evaluation rows. It replaces spec.evaluation.dataset.")
    ] = None,
    defaults: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="File with values of the operator's chart. The job inherits its jobDefaults."
        ),
    ] = None,
    sweep: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD[=V1,V2]", help="Compare the plans for some values, e.g. of training.loraRank."
        ),
    ] = None,
) -> None:
    """Show what a job requests and how long it takes: GPUs, CPU, memory, steps, hours, and the reasons.

    Exit code 1: no plan can be made. With --sweep: there is no plan for any of the values.
    """
    manifest = load(file)
    rows, notes = known_rows(manifest, dataset, evaluation_dataset)
    job = manifest.job if accelerator is None else on(accelerator, manifest.job)
    platform = NO_DEFAULTS if defaults is None else defaults_in(defaults)
    if sweep is not None:
        found = sweep_of(sweep, job)
        lines = [Line(value, outcome(made, config, hub, rows, notes, platform)) for value, made in found.jobs]
        show_sweep(found.path, lines, output)
        raise typer.Exit(INVALID if all(isinstance(line.outcome, Unplannable) for line in lines) else 0)
    made = outcome(job, config, hub, rows, notes, platform)
    if isinstance(made, Unplannable):
        raise UserError(str(made), INVALID) from made
    warn_of_override(job, config, hub, platform)
    if output is PlanFormat.TEXT:
        out().print("\n".join(text(made)), markup=False)
    else:
        write(serialized(without_seed(made), output))


def defaults_in(path: Path) -> JobDefaults:
    """Return the platform's defaults for jobs from a file with values of the operator's Helm chart.

    The defaults are the section ``jobDefaults`` of the file.

    Raises:
        UserError: if the file cannot be read, has no key jobDefaults, or a default is wrong.
    """
    try:
        found = [document.body[SECTION] for document in load_file(path) if SECTION in document.body]
        if len(found) != 1:
            raise UserError(
                f"{path}: needs the key {SECTION} once, as in the values of the chart", UNREADABLE
            )
        return read_defaults(found[0], ACCELERATORS)
    except UnreadableManifest as error:
        raise UserError(str(error), UNREADABLE) from error
    except InvalidManifest as error:
        raise UserError(f"{path}: {error}", INVALID) from error


def known_rows(
    manifest: Manifest, dataset: Path | None, evaluation: Path | None
) -> tuple[RowCounts | None, list[str]]:
    """Count the rows of a job's datasets, and measure the prompts. Return the result, and notes for the plan.

    There are no notes. But if the manifest's datasets cannot be read on this machine, the result is None, and
    one note has the reason.

    - ``dataset``, ``evaluation``: files from the options, in place of the datasets of the manifest, or None

    Raises:
        UserError: if a file from an option cannot be read.
    """
    try:
        return rows_of(manifest, dataset, evaluation), []
    except UserError as error:
        if dataset is not None or evaluation is not None:
            raise
        return None, [f"rows: {error}"]


def on(accelerator: str, job: RFTJob) -> RFTJob:
    """Return a copy of a job that asks for another kind of GPU.

    The number of GPUs and all other fields of the job's accelerator are removed from the copy, so that the
    plan chooses them.

    - ``accelerator``: a GPU in the catalogue ``ACCELERATORS``, such as ``nvidia-l40s-48gb``, or ``cpu``

    Raises:
        UserError: if the catalogue has no such GPU.
    """
    if accelerator not in ACCELERATORS and accelerator != "cpu":
        names = ", ".join(ACCELERATORS)
        raise UserError(
            f"--accelerator {accelerator!r} is not in the catalogue; name one of: cpu, {names}", INVALID
        )
    return RFTJob.model_validate(with_value(job.dump(), ACCELERATOR, accelerator))


def outcome(
    job: RFTJob,
    config: Path | None,
    hub: bool,
    rows: RowCounts | None,
    notes: list[str],
    defaults: JobDefaults = NO_DEFAULTS,
) -> Plan | Unplannable:
    """Compute and return the plan of a job, or the error that says why there is no plan.

    - ``config``: the model's config.json, or a folder with it, or None
    - ``hub``: whether config.json is downloaded from the hub, if ``config`` is None
    - ``rows``: the numbers of rows and the length of their prompts, or None if they are not known
    - ``notes``: notes to add to those of the plan
    - ``defaults``: the platform's defaults for jobs, from the values of the operator's chart

    Raises UserError if config.json cannot be read, or if the model cannot be trained.
    """
    read = shape_for(job.spec.model, config, hub=hub)
    try:
        # No UID is needed: only the seed is derived from it, and a plan does not depend on the seed.
        made = planned(
            inherit(job.spec, defaults, asked_for(job.spec)),
            "",
            shape=read.shape if read is not None else None,
            rows=rows,
            force_memory=memory_check_disabled(job.metadata.annotations),
        )
    except Unplannable as error:
        return error
    told = (
        [f"the number and sizes of the model's layers were read from {read.path}"] if read is not None else []
    )
    return made.model_copy(update={"notes": [*(made.notes or []), *told, *notes]})


def warn_of_override(
    job: RFTJob, config: Path | None, hub: bool, defaults: JobDefaults = NO_DEFAULTS
) -> None:
    """Print a warning on standard error if the job sets a number of GPUs that the plan would not choose.

    - ``config``: the model's config.json, or a folder with it, or None
    - ``hub``: whether config.json is downloaded from the hub, if ``config`` is None
    - ``defaults``: the platform's defaults for jobs, from the values of the operator's chart
    """

    def made(spec: RFTJobSpec) -> Plan:
        found = outcome(job.model_copy(update={"spec": spec}), config, hub, None, [], defaults)
        if isinstance(found, Unplannable):
            raise found
        return found

    overridden = contradiction(job.spec, made)
    if overridden is not None:
        err().print(f"warning: {overridden}", markup=False)


def show_sweep(path: str, lines: list[Line], output: PlanFormat) -> None:
    """Print a comparison of the plans for several values of one field, which the option ``--sweep`` names.

    - ``path``: the path of the field
    - ``lines``: for each value, the plan, or the error if there is no plan
    - ``output``: the format to print
    """
    if output is PlanFormat.TEXT:
        # Like kubectl: lines are not cut to the terminal's width.
        out(WIDE_ENOUGH).print(table(path, lines), markup=False)
        err().print("~ marks an estimate; rft plan without --sweep shows the assumptions", markup=False)
    else:
        write(serialized({"field": path, "sweep": [entry(line) for line in lines]}, output))


def serialized(body: dict[str, Any], output: PlanFormat) -> str:
    """Return ``body`` as JSON text if the format ``output`` is JSON, else as YAML text."""
    shown = json.dumps(body, indent=2) if output is PlanFormat.JSON else yaml.safe_dump(body, sort_keys=False)
    return shown.rstrip()
