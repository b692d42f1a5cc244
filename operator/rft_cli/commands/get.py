"""``rft get``: lists the RFTJobs in a cluster with their phase and progress."""

import json
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer
import yaml

from rft_cli.options import Context, Namespace, connect, job_names, refuse_folder
from rft_cli.render.console import WIDE_ENOUGH, out, reports_errors, write
from rft_cli.render.jobs import job_table
from rft_cli.render.views import COLUMNS, WIDE_COLUMNS


class GetFormat(StrEnum):
    """The values of the option ``-o`` of ``rft get``."""

    WIDE = "wide"
    YAML = "yaml"
    JSON = "json"


@reports_errors
def get(
    name: Annotated[
        str | None,
        typer.Argument(help="Name of a job. If absent: all jobs.", autocompletion=job_names),
    ] = None,
    output: Annotated[GetFormat | None, typer.Option("--format", "-o", help="wide, yaml or json.")] = None,
    all_namespaces: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Every namespace.")] = False,
    context: Context = None,
    namespace: Namespace = None,
) -> None:
    """List the RFTJobs in a cluster, or show one: phase, steps, reward, time left, age."""
    if name is not None:
        refuse_folder(name)
    cluster = connect(context, namespace)
    jobs = [cluster.job(name)] if name else cluster.jobs(all_namespaces=all_namespaces)
    if output in (GetFormat.YAML, GetFormat.JSON):
        body = jobs[0] if name else {"apiVersion": "v1", "kind": "List", "items": jobs}
        text = (
            json.dumps(body, indent=2) if output is GetFormat.JSON else yaml.safe_dump(body, sort_keys=False)
        )
        write(text.rstrip())
        return
    if not jobs:
        where = "any namespace" if all_namespaces else f"namespace {cluster.namespace!r}"
        out().print(f"No RFTJobs in {where}.", markup=False)
        return
    columns = WIDE_COLUMNS if output is GetFormat.WIDE else COLUMNS
    table = job_table(jobs, ("namespace", *columns) if all_namespaces else columns, datetime.now(UTC))
    # Like kubectl: lines are not cut to the terminal's width.
    out(WIDE_ENOUGH).print(table)
