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
    """Show the state of a job in the cluster live until it ends.

    Exit code 0: the job is Succeeded; 1: it is Failed, Cancelled or Invalid.
    """
    refuse_folder(name)
    raise typer.Exit(watched(lambda: connect(context, namespace).changes(name), out(quiet=quiet)))
