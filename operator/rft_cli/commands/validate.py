"""``rft validate``: checks the RFTJobs in files, and prints all problems and warnings at once."""

from pathlib import Path
from typing import Annotated

import typer

from rft_cli.errors import INVALID, UserError
from rft_cli.local.manifest import jobs_of, read
from rft_cli.render.console import err, reports_errors
from rft_cli.render.problems import is_valid


@reports_errors
def validate(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Manifests; - reads stdin.")],
    everything: Annotated[bool, typer.Option("--all", help="Print all warnings, not only three.")] = False,
    local: Annotated[
        bool, typer.Option("--local", help="Check for rft run, which needs no storage.")
    ] = False,
) -> None:
    """Check every RFTJob in the files: fields, ranges and the rules across fields.

    Advice from the tuning guide is printed as a warning. There is also a warning if the job sets another
    number of GPUs than the plan would have. Warnings do not change the exit code. Without --all only the
    three most important warnings are printed. Advice whose id is in the annotation
    rft.dev/acknowledged-advice is never printed.

    The check also finds errors that would otherwise appear later: errors in graders' code, which is parsed
    and never run; errors in regular expressions, schemas and templates; names that Kubernetes or the hub
    would refuse; and wrong rows, if the dataset is a local file or a ConfigMap in the same manifest file.

    Objects of other kinds are skipped.

    Exit code 1: something is wrong, or a file has no RFTJob; 2: a file cannot be read.
    """
    exit_code = 0
    for path in files:
        try:
            documents = read(path)
            verdicts = [
                is_valid(document, documents, path, local=local, everything=everything)
                for document in jobs_of(documents, path)
            ]
        except UserError as error:
            err().print(f"error: {error}", markup=False)
            exit_code = max(exit_code, error.exit_code)
            continue
        if not all(verdicts):
            exit_code = max(exit_code, INVALID)
    raise typer.Exit(exit_code)
