"""``rft plan``: what a job would ask for, before it runs."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from rft_api.status import Plan
from rft_cli.console import INVALID, UserError, out, reports_errors
from rft_cli.manifest import load
from rft_planner.accelerators import ACCELERATORS
from rft_planner.plan import Unplannable
from rft_planner.plan import plan as planned


class Format(StrEnum):
    """What ``-o`` takes."""

    TEXT = "text"
    JSON = "json"
    YAML = "yaml"


@reports_errors
def plan(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Manifest with one RFTJob; - reads stdin.")],
    output: Annotated[Format, typer.Option("--output", "-o", help="text, json or yaml.")] = Format.TEXT,
    accelerator: Annotated[
        str | None, typer.Option("--accelerator", help="Plan for this kind, e.g. nvidia-l40s-48gb.")
    ] = None,
) -> None:
    """Say what a job would ask for: GPUs, CPU and memory, and why. Exit code 1: no plan can be made."""
    job = load(file).job
    document = job.spec.dump()
    if accelerator is not None:
        if accelerator not in ACCELERATORS and accelerator != "cpu":
            names = ", ".join(ACCELERATORS)
            raise UserError(f"--accelerator {accelerator!r} is not in the catalogue: cpu, {names}", INVALID)
        # What it takes on that kind is the question, not what the job asks for on its own.
        kept = {key: value for key, value in document.get("resources", {}).items() if key != "gpus"}
        document["resources"] = {**kept, "accelerator": {"name": accelerator}}
    try:
        # Without a UID: what is derived from it is the seed, which is no part of what a job asks for.
        made = planned(type(job.spec).model_validate(document, by_alias=True, by_name=False), "")
    except Unplannable as error:
        raise UserError(str(error), INVALID) from error
    asked = without_seed(made)
    if output is Format.TEXT:
        out().print(text(made), markup=False)
    else:
        shown = (
            json.dumps(asked, indent=2) if output is Format.JSON else yaml.safe_dump(asked, sort_keys=False)
        )
        typer.echo(shown.rstrip())


def without_seed(made: Plan) -> dict[str, Any]:
    """Return a plan as JSON, without the seed that only a stored job has."""
    dumped = made.dump()
    dumped.get("effective", {}).pop("seed", None)
    return dumped


def text(made: Plan) -> str:
    """Return a plan for people."""
    lines = [
        f"GPUs    {made.gpus}" + (f" × {made.accelerator}" if made.accelerator else ""),
        f"CPU     {made.cpu}",
        f"memory  {made.memory}",
        *(f"- {note}" for note in made.notes or []),
        *(f"  {part.mebibytes / 1024:6.1f} GiB  {part.name}" for part in made.memory_parts or []),
    ]
    return "\n".join(lines)
