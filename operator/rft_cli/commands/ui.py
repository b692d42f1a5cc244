"""``rft ui``: serves the reports of runs as web pages to a browser on this machine."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError

from rft_api.status import RFTJobStatus
from rft_cli.errors import UNREADABLE, UserError
from rft_cli.local.listed import Listed, listed, run_folders
from rft_cli.local.reported import of_folder, of_job
from rft_cli.options import Context, Namespace, connect
from rft_cli.render.console import out, reports_errors

if TYPE_CHECKING:
    from rft_cli.cluster.client import Body, ClusterClient
    from rft_cli.render.live import Runs


@reports_errors
def ui(
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="A run's folder, or a folder of such folders.")
    ] = None,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Serve the jobs of a namespace, in place of DIR.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 means any free port.")] = 0,
    context: Context = None,
    namespace: Namespace = None,
) -> None:
    """Serve the reports of runs to a browser on this machine, until Ctrl-C.

    The pages reload by themselves and are read-only. The printed address contains a secret token: whoever
    knows the address can read the pages. Exit code 2: there is no such folder, or the port is not free.
    """
    if (folder is not None) == cluster:
        raise UserError("name a folder with runs, or --cluster for jobs; not both", UNREADABLE)
    # Imported here, because the templates take a tenth of a second, which other commands do not need.
    from rft_cli.render.live import PageServer

    runs = _of_cluster(connect(context, namespace)) if folder is None else _of_folder(folder)
    try:
        server = PageServer(runs, port)
    except OSError as error:
        raise UserError(
            f"--port {port}: {error.strerror}; leave --port out to use a free port", UNREADABLE
        ) from error
    with server, suppress(KeyboardInterrupt):
        out().print(f"{server.address}\nCtrl-C ends it", markup=False)
        server.serve_forever()


def _of_folder(folder: Path) -> "Runs":
    from rft_cli.render.live import Runs

    run_folders(folder)  # raises UserError at once if there is no such folder
    return Runs(
        str(folder), lambda: listed(run_folders(folder)), lambda name: of_folder(run_folders(folder)[name])
    )


def _of_cluster(client: "ClusterClient") -> "Runs":
    from rft_cli.render.live import Runs

    return Runs(
        f"namespace {client.namespace}",
        lambda: [_listed(job) for job in client.jobs()],
        lambda name: of_job(name, client.job(name)),
    )


def _listed(job: "Body") -> Listed:
    name = job["metadata"]["name"]
    try:
        return Listed(name, RFTJobStatus.model_validate(job.get("status") or {}))
    except ValidationError:
        return Listed(name, RFTJobStatus(), "its status was written by another version of the operator")
