"""Options that several commands share, and the connection to the cluster that they select."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rft_cli.cluster.client import ClusterClient

Context = Annotated[str | None, typer.Option("--context", help="Context of the kubeconfig.")]
Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="The context's if absent.")]
SendTokenTo = Annotated[
    list[str] | None,
    typer.Option(
        metavar="HOST",
        envvar="RFT_SEND_TOKEN_TO",
        help="A server that may get the token its field asks for; may be repeated.",
    ),
]


def connect(context: str | None, namespace: str | None) -> "ClusterClient":
    """Return the connection to the cluster that the options select."""
    # Imported here, because the kubernetes client takes a second, which commands on files do not need.
    from rft_cli.cluster.client import ClusterClient

    return ClusterClient(context, namespace)
