"""``rft logs``: prints the log of a job's newest pod."""

from typing import Annotated

import typer

from rft_api.controls import without_colours
from rft_cli.options import Context, JobName, Namespace, connect, refuse_folder
from rft_cli.render.console import reports_errors, write
from rft_run.config import TRAINER_CONTAINER


@reports_errors
def logs(
    name: JobName,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print new lines until the container ends.")
    ] = False,
    container: Annotated[
        str, typer.Option(help="trainer, or grader, which runs users' code.")
    ] = TRAINER_CONTAINER,
    tail: Annotated[int | None, typer.Option(min=0, help="Only the last lines.")] = None,
    context: Context = None,
    namespace: Namespace = None,
) -> None:
    """Print the log of the newest pod of a job."""
    refuse_folder(name)
    cluster = connect(context, namespace)
    pod = cluster.newest_pod(cluster.job(name))["metadata"]["name"]
    try:
        for line in cluster.log_lines(pod, container, follow=follow, tail=tail):
            # Progress bars end their lines with carriage returns, and libraries colour their names.
            write(without_colours(line.rstrip("\r").replace("\r", "\n")))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
