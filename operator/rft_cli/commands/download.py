"""``rft download``: copies files of a job's run from its volume in the cluster to this machine."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rft_cli.commands.report import ReportFormat, rendered, write_page
from rft_cli.commands.source import ended_by_signals
from rft_cli.errors import UNREADABLE, UserError
from rft_cli.local.brought import PARTS, refuse_other_run, write_records
from rft_cli.local.lock import locked
from rft_cli.local.received import Transferred, receive
from rft_cli.local.reported import of_folder
from rft_cli.options import Context, JobName, Namespace, TrainerImage, connect
from rft_cli.render.console import err, out, reports_errors
from rft_cli.render.jobs import INTERRUPTED
from rft_run.folder import RunFolder

_MIB = 1 << 20


class DownloadedPart(StrEnum):
    """The values of the option ``--only`` of ``rft download``: the parts of a run's folder to copy."""

    ADAPTER = "adapter"
    CHECKPOINTS = "checkpoints"
    ROLLOUTS = "rollouts"
    RECORDS = "records"


@reports_errors
def download(
    name: JobName,
    output: Annotated[
        Path | None, typer.Option("--output", help="Folder to write; runs/NAME if absent.")
    ] = None,
    only: Annotated[
        list[DownloadedPart] | None,
        typer.Option("--only", help="Copy only adapter, checkpoints, rollouts or records; may be repeated."),
    ] = None,
    image: TrainerImage = None,
    context: Context = None,
    namespace: Namespace = None,
) -> None:
    """Copy adapter, checkpoints, rollouts and records of a job to this machine, and write its report.

    Records are files such as metrics and evaluation results. A pod with the job's image reads the volume, and
    is deleted at the end. You need the rights to create, get, list and delete pods, and to run commands in
    them.

    Repeat the command to continue an interrupted download. Only missing bytes are sent, and every file is
    compared with its SHA-256 digest.

    Exit code 1: there is no such job, its folder is on no volume, or --output has other files; 2: the files
    cannot be written.
    """
    if "/" in name:
        raise UserError(
            f"{name}: cannot be the name of a job; name a job of the cluster, see rft get", UNREADABLE
        )
    cluster = connect(context, namespace)
    # Imported here, because the kubernetes client takes a second, which completion in a shell does not need.
    from rft_cli.cluster.volume import volume_of

    job = cluster.job(name)
    folder = output or Path("runs") / name
    parts = only or list(DownloadedPart)
    patterns = [pattern for part in parts for pattern in PARTS[part]]
    refuse_other_run(folder, job)
    with locked(RunFolder(folder)):
        write_records(folder, job)
        try:
            with (
                ended_by_signals(),
                out().status("starting a pod that reads the volume") as shown,
                volume_of(cluster, job, image, err().print) as volume,
            ):
                received = receive(
                    volume,
                    patterns,
                    folder,
                    progress=lambda here, size: shown.update(_progress(here, size)),
                )
        except KeyboardInterrupt:
            err().print(f"interrupted; to continue, repeat the command: rft download {name}")
            raise typer.Exit(INTERRUPTED) from None
        out().print(_done(received, folder))
        if DownloadedPart.RECORDS in parts:
            write_page(rendered(ReportFormat.HTML, of_folder(folder)), folder / "report.html")


def _progress(here: int, size: int) -> str:
    return f"{here / _MIB:.1f} of {size / _MIB:.1f} MiB"


def _done(received: Transferred, folder: Path) -> str:
    return (
        f"{received.files} files, {received.size / _MIB:.1f} MiB, {received.sent / _MIB:.1f} MiB of them sent"
        f" now: {folder}"
    )
