"""Prints the results of a run on this machine: held-out evaluation, advice, and the paths of its files."""

from pathlib import Path

from rft_api.status import RFTJobStatus
from rft_cli.render.console import Terminal
from rft_cli.render.evaluation import evaluation_table, verdict


def print_results(console: Terminal, status: RFTJobStatus, picture: Path | None) -> None:
    """Print a run's held-out evaluation, the advice on the run, and the paths of reward curve and adapter.

    Results that do not exist are left out. ``picture``: the image file of the reward curve, or None.
    """
    if status.evaluation is not None:
        console.print()
        console.print(evaluation_table(status.evaluation))
        console.print(verdict(status.evaluation), markup=False)
    for advice in status.recommendations or []:
        console.print(f"advice: {advice.parameter}: {advice.message} [{advice.rule}]", markup=False)
    console.print()
    if picture is not None:
        console.print(f"curve:   {picture}", markup=False)
    if status.output is not None and status.output.adapter:
        console.print(f"adapter: {status.output.adapter}", markup=False)
