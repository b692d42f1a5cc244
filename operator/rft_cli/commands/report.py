"""``rft report``: writes one page about a run, as Markdown or as HTML."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rft_api.controls import visible
from rft_cli.errors import UNREADABLE, UserError
from rft_cli.local.reported import ReportedRun, of_folder, of_job
from rft_cli.options import Context, Namespace, connect
from rft_cli.render.console import out, reports_errors, write
from rft_cli.render.page import as_markdown


class ReportFormat(StrEnum):
    """The values of the option ``--format`` of ``rft report``."""

    HTML = "html"
    MARKDOWN = "markdown"


@reports_errors
def report(
    source: Annotated[str, typer.Argument(metavar="NAME|DIR", help="A job, or the folder of a run.")],
    output: Annotated[
        Path | None, typer.Option("--output", help="Write the page into this file, such as report.html.")
    ] = None,
    format_: Annotated[
        ReportFormat | None,
        typer.Option("--format", "-o", help="If absent: html if --output ends with .html, else markdown."),
    ] = None,
    context: Context = None,
    namespace: Namespace = None,
) -> None:
    """Write one page about a run: evaluation, curves, advice, rollouts, parameters, plan, time, usage.

    As HTML, the page is one file that needs no network.

    Exit code 1: there is no such job; 2: there is no such folder, or the folder has no run.
    """
    found = load_run(source, context, namespace)
    write_page(rendered(format_ or format_of(output), found), output)


def write_page(text: str, output: Path | None) -> None:
    """Write the text of a page into the file ``output``, or to standard output if ``output`` is None.

    Raises UserError if the file cannot be written.
    """
    if output is None:
        write(text)
        return
    try:
        output.write_text(visible(text) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--output {output}: cannot be written: {error.strerror}", UNREADABLE) from error
    out().print(f"written to {output}", markup=False)


def load_run(source: str, context: str | None, namespace: str | None) -> ReportedRun:
    """Return the data of a run for a report or a comparison.

    ``source`` is the path of the run's folder, or the name of a job in the cluster.

    Raises:
        UserError: if there is no such folder or job, or if the folder or the job cannot be read.
    """
    if Path(source).is_dir() or "/" in source:
        return of_folder(Path(source))
    return of_job(source, connect(context, namespace).job(source))


def format_of(output: Path | None) -> ReportFormat:
    """Return the format of the page: HTML if the name of the file ``output`` ends in .html or .htm.

    For any other name, and for standard output (None), the format is Markdown.
    """
    is_html = output is not None and output.suffix.lower() in (".html", ".htm")
    return ReportFormat.HTML if is_html else ReportFormat.MARKDOWN


def rendered(chosen: ReportFormat, run: ReportedRun) -> str:
    """Return the report of a run, one page in the ``chosen`` format, as text."""
    if chosen is ReportFormat.MARKDOWN:
        return as_markdown(run)
    # Imported here, because the templates take a tenth of a second, which other commands do not need.
    from rft_cli.render.html import as_html

    return as_html(run)
