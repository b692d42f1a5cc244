"""``rft validate``: reports all problems of manifests at once."""

from pathlib import Path
from typing import Annotated

import typer

from rft_api import KIND
from rft_cli.errors import INVALID, UserError
from rft_cli.local.manifest import is_job, read
from rft_cli.render.console import err, out, reports_errors
from rft_cli.render.problems import is_valid


@reports_errors
def validate(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Manifests; - reads stdin.")],
) -> None:
    """Check every RFTJob in the files: fields, ranges and the rules across fields.

    What the tuning guide would advise, and a number of GPUs that the plan would not take, are printed as
    warnings and change no exit code.

    Other kinds in the same files are skipped. Exit code 1: something is wrong; 2: a file cannot be read.
    """
    exit_code = 0
    for path in files:
        try:
            jobs = [document for document in read(path) if is_job(document.body)]
        except UserError as error:
            err().print(f"error: {error}", markup=False)
            exit_code = max(exit_code, error.exit_code)
            continue
        if not jobs:
            out().print(f"{path}: holds no {KIND}", markup=False)
        verdicts = [is_valid(document) for document in jobs]
        if not all(verdicts):
            exit_code = max(exit_code, INVALID)
    raise typer.Exit(exit_code)
