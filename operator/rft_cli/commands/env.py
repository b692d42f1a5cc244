"""``rft env``: check a job's environment with a scripted model, without training."""

import json
from pathlib import Path
from typing import Annotated

import typer

from rft_cli.commands.run import by_name
from rft_cli.errors import INVALID
from rft_cli.local import environment, grading
from rft_cli.local.environment import Played
from rft_cli.local.inputs import Overrides
from rft_cli.local.manifest import load
from rft_cli.render.console import out, reports_errors
from rft_cli.render.rollouts import indented, turn

env = typer.Typer(
    help="Check a job's environment with a scripted model, without training.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@env.callback()
def _env() -> None:
    """Do nothing. This callback makes typer treat ``check`` as a subcommand of ``rft env``.

    For a group with only one command and no callback, typer would drop the name of the command.
    """


@env.command()
@reports_errors
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Manifest with one RFTJob.")],
    say: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="Text of one turn of the model; may be repeated.")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows to play.")] = 3,
    dataset: Annotated[Path | None, typer.Option(help="File with rows. It replaces spec.dataset.")] = None,
    grader: Annotated[
        list[str] | None,
        typer.Option(
            metavar="environment=FILE",
            help="File with the environment's code. It replaces spec.environment.python.configMap.",
        ),
    ] = None,
) -> None:
    """Show the tools of the job's environment, and play rollouts of a few rows with your texts as replies.

    Each --say is the text of the model in one turn. To call a tool, put this into the text:
    <tool_call>{"name": "TOOL", "arguments": {}}</tool_call>. Users' code runs in a worker process, as in a
    local run.

    Exit code 1: the environment or a tool call failed; 2: a file cannot be read.
    """
    manifest = load(file)
    lines = grading.rows_of_dataset(manifest, dataset)[:rows]
    overrides = Overrides(dataset, None, by_name(grader or []))
    tools, found = environment.played(manifest, overrides, lines, say or [])
    for tool in tools:
        out().print(f"tool {json.dumps(tool['function'], ensure_ascii=False)}", markup=False, highlight=False)
    for one in found:
        out().print("\n".join(_lines(one)), markup=False, highlight=False)
    broken = sum(bool(one.error or one.failures) for one in found)
    out().print(f"{len(found)} rows, {broken} with a failure", markup=False, highlight=False)
    raise typer.Exit(INVALID if broken else 0)


def _lines(one: Played) -> list[str]:
    reward = "none" if one.reward is None else f"{one.reward:g}"
    lines = [f"row {one.line}: reward {reward}, {one.seconds:.2f} s"]
    for message in one.messages:
        lines += turn(message)
    if one.error:
        lines += indented(f"the environment failed: {one.error}", "     ")
    return lines
