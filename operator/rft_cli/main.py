"""The entry point of ``rft``, also installed as ``kubectl-rft``."""

import sys
import traceback
from typing import Any

import typer

from rft_cli.commands.curve import curve
from rft_cli.commands.explain import explain
from rft_cli.commands.export import export
from rft_cli.commands.get import get
from rft_cli.commands.grade import grade
from rft_cli.commands.import_ import import_
from rft_cli.commands.lifecycle import cancel, resume, suspend
from rft_cli.commands.logs import logs
from rft_cli.commands.plan import plan
from rft_cli.commands.report import report
from rft_cli.commands.run import run
from rft_cli.commands.samples import samples
from rft_cli.commands.submit import submit
from rft_cli.commands.suggest import suggest
from rft_cli.commands.validate import validate
from rft_cli.commands.watch import watch
from rft_cli.render.console import err


class App(typer.Typer):
    """The commands. The traceback of an unexpected error, which may have any text, is made visible too."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command that the command line names."""
        try:
            return super().__call__(*args, **kwargs)
        except Exception:
            err().print(traceback.format_exc())
            sys.exit(1)


app = App(
    help="Reinforcement fine-tuning of language models: check, run and watch RFTJobs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

BEFORE = (import_, validate, explain, suggest, plan, grade, run, submit)
DURING = (get, watch, logs, suspend, resume, cancel)
RESULTS = (curve, samples, report, export)

for command in (*BEFORE, *DURING, *RESULTS):
    app.command(command.__name__.rstrip("_"))(command)

if __name__ == "__main__":
    app()
