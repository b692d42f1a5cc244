"""The entry point of ``rft``, also installed as ``kubectl-rft``."""

import typer

from rft_cli.curve import curve
from rft_cli.explain import explain
from rft_cli.export import export
from rft_cli.get import get
from rft_cli.lifecycle import cancel, resume, suspend
from rft_cli.logs import logs
from rft_cli.plan import plan
from rft_cli.report import report
from rft_cli.run import run
from rft_cli.samples import samples
from rft_cli.submit import submit
from rft_cli.suggest import suggest
from rft_cli.validate import validate
from rft_cli.watch import watch

app = typer.Typer(
    help="Reinforcement fine-tuning of language models: check, run and watch RFTJobs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

BEFORE = (validate, explain, suggest, plan, run, submit)
DURING = (get, watch, logs, suspend, resume, cancel)
RESULTS = (curve, samples, report, export)

for command in (*BEFORE, *DURING, *RESULTS):
    app.command()(command)

if __name__ == "__main__":
    app()
