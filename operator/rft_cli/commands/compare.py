"""``rft compare``: shows the parameters, results and rewards of several runs side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from rft_advice.baseline import named_in
from rft_cli.commands.report import ReportFormat, format_of, load_run, write_page
from rft_cli.errors import UNREADABLE, UserError
from rft_cli.local.reported import ReportedRun, of_job
from rft_cli.options import Context, Namespace, connect
from rft_cli.render.console import out, reports_errors


@reports_errors
def compare(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME|DIR…", help="Jobs, or folders of runs. All others are compared with the first."
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", help="Write the page into this file, such as compare.html.")
    ] = None,
    format_: Annotated[
        ReportFormat | None,
        typer.Option("--format", "-o", help="If absent: html if --output ends with .html, else markdown."),
    ] = None,
    png: Annotated[
        Path | None, typer.Option(help="Also draw the reward curves into this image file.")
    ] = None,
    context: Context = None,
    namespace: Namespace = None,
) -> None:
    """Compare runs side by side: changed parameters, results, rewards on the same held-out rows, and cost.

    If only one job is named, it is compared with its baseline: the job in its annotation rft.dev/baseline.

    Exit code 1: there is no such job; 2: there is no such folder, or fewer than two runs are named.
    """
    # Imported here, because numpy and the templates take a quarter of a second.
    from rft_cli.render import comparison
    from rft_cli.render.html import comparison_as_html
    from rft_cli.render.png import write_comparison_png

    runs = _runs(sources, context, namespace)
    found = comparison.compare(runs)
    is_html = (format_ or format_of(output)) is ReportFormat.HTML
    write_page(comparison_as_html(found) if is_html else comparison.as_markdown(found), output)
    if png is not None:
        write_comparison_png(comparison.curves(runs), png)
        out().print(f"written to {png}", markup=False)


def _runs(sources: Sequence[str], context: str | None, namespace: str | None) -> dict[str, ReportedRun]:
    """Return the data of the runs to compare, by the name of the run.

    ``sources`` are names of jobs in the cluster, or paths of runs' folders. If two runs have the same name,
    the keys are the texts in ``sources`` instead. If ``sources`` is a single job, return first the job that
    its annotation rft.dev/baseline names, and then the job itself.

    Raises:
        UserError: if ``sources`` is a single folder or a single job without this annotation, if it names a
            run twice, or if a run cannot be read.
    """
    if len(sources) > 1:
        found = [load_run(source, context, namespace) for source in sources]
        names = [run.name for run in found]
        labels = names if len(set(names)) == len(names) else list(sources)
        if len(set(labels)) < len(labels):
            raise UserError(
                f"{' '.join(sources)}: the same run is named twice; name each run once", UNREADABLE
            )
        return dict(zip(labels, found, strict=True))
    (source,) = sources
    if Path(source).is_dir() or "/" in source:
        raise UserError(
            f"{source}: is only one run; name a second folder or job to compare it with", UNREADABLE
        )
    cluster = connect(context, namespace)
    job = cluster.job(source)
    baseline = named_in(job)
    if baseline is None:
        raise UserError(
            f"{source}: has no annotation rft.dev/baseline; name a second run to compare it with", UNREADABLE
        )
    return {baseline: of_job(baseline, cluster.job(baseline)), source: of_job(source, job)}
