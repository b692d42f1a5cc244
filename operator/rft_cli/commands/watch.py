"""``rft watch``: shows a job in the cluster live until it ends."""

from typing import Annotated

import typer

from rft_cli.options import Context, JobName, Namespace, connect, refuse_folder
from rft_cli.render.console import out, reports_errors
from rft_cli.render.jobs import watched


@reports_errors
def watch(
    name: JobName,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print nothing, only set the exit code.")
    ] = False,
    context: Context = None,
    namespace: Namespace = None,
) -> None:
    """Follow a job until it ends. Exit code 0: Succeeded; 1: Failed, Cancelled or Invalid."""
    refuse_folder(name)
    raise typer.Exit(watched(lambda: connect(context, namespace).changes(name), out(quiet=quiet)))
