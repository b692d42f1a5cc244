"""Defines the options that several commands of ``rft`` share, and connects to the cluster that the options
``--context`` and ``--namespace`` select.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rft_cli.errors import UNREADABLE, UserError

if TYPE_CHECKING:
    from rft_cli.cluster.client import ClusterClient

Context = Annotated[str | None, typer.Option("--context", help="Context of the kubeconfig.")]
Namespace = Annotated[
    str | None, typer.Option("--namespace", "-n", help="If absent: the context's namespace.")
]
TrainerImage = Annotated[
    str | None, typer.Option("--image", help="Image of the pod that reads the volume. If absent: the job's.")
]
CheckpointStep = Annotated[int | None, typer.Option("--step", min=1, help="Use the checkpoint of this step.")]
BestCheckpoint = Annotated[
    bool, typer.Option("--best", help="Use the checkpoint with the highest held-out reward.")
]
SendTokenTo = Annotated[
    list[str] | None,
    typer.Option(
        metavar="HOST",
        envvar="RFT_SEND_TOKEN_TO",
        help="Server that may get your token if the manifest sends it there; may be repeated.",
    ),
]
PushTo = Annotated[
    list[str] | None,
    typer.Option(
        metavar="DESTINATION",
        envvar="RFT_PUSH_TO",
        help=(
            "Where spec.output may write: hf://OWNER/NAME[@REVISION] or s3://BUCKET/PREFIX; may be repeated."
        ),
    ),
]


def job_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the names of RFTJobs in the cluster that begin with ``incomplete``, for completion in a shell.

    The options in ``ctx`` select the cluster and the namespace. Return an empty list if the cluster does not
    answer.
    """
    try:
        cluster = connect(ctx.params.get("context"), ctx.params.get("namespace"))
        names = [str(job["metadata"]["name"]) for job in cluster.jobs()]
    except Exception:  # the shell would print a message into the line that the user is typing
        return []
    return [name for name in names if name.startswith(incomplete)]


JobName = Annotated[str, typer.Argument(metavar="NAME", help="The job.", autocompletion=job_names)]


def refuse_folder(name: str) -> None:
    """Raise UserError if ``name``, which must be the name of a job in the cluster, is the folder of a run on
    this machine, or cannot be the name of a job.
    """
    path = Path(name)
    if (path / "run.json").is_file():
        raise UserError(
            f"{name}: is the folder of a run on this machine, not a job of a cluster; see rft curve {name},"
            f" rft report {name} and {path / 'trainer.log'}. For a job of this name, call rft in another"
            " folder",
            UNREADABLE,
        )
    if "/" in name or name in (".", ".."):
        kind = "is a folder, and no job" if path.is_dir() else "cannot be the name of a job"
        raise UserError(f"{name}: {kind}; name a job of the cluster, see rft get", UNREADABLE)


def connect(context: str | None, namespace: str | None) -> "ClusterClient":
    """Return a client for a cluster. ``context`` and ``namespace`` are the values of ``--context`` and
    ``--namespace``. None: the current context, and the namespace of the context.

    Raises UserError if there is no usable kubeconfig or no such context.
    """
    # Imported here, because the kubernetes client takes a second, which commands on files do not need.
    from rft_cli.cluster.client import ClusterClient

    return ClusterClient(context, namespace)
