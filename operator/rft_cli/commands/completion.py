"""``rft completion``: prints a script with which a shell completes commands, options and names of jobs."""

import os
from enum import StrEnum
from typing import Annotated

import typer


class CompletedShell(StrEnum):
    """Shells for which ``rft`` can complete commands."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(
    ctx: typer.Context, shell: Annotated[CompletedShell, typer.Argument(help="bash, zsh or fish.")]
) -> None:
    """Print the completion script of a shell.

    For bash: source <(rft completion bash). For zsh: source <(rft completion zsh), after compinit. For fish:
    rft completion fish | source.
    """
    # If this variable is set, typer prints the completion script. The script sets it too when it calls rft.
    os.environ["_RFT_COMPLETE"] = f"source_{shell}"
    ctx.find_root().command.main(args=[], prog_name="rft")
