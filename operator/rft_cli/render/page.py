"""Makes the Markdown page about a run, for ``rft report``, and escapes texts for Markdown."""

from collections.abc import Iterator, Sequence

from rft_cli.local.reported import ReportedRun
from rft_cli.render import sections
from rft_cli.render.curve import points_of_steps
from rft_cli.render.evaluation import verdict
from rft_cli.render.plot import line_chart
from rft_cli.render.views import duration, steps
from rft_run.cluster_text import cluster_text
from rft_run.markdown import code, escaped

CHART_WIDTH, CHART_HEIGHT = 64, 10


def as_markdown(run: ReportedRun) -> str:
    """Return the Markdown page about a run: evaluation, reward curve, parameters, plan and use.

    Sections whose data do not exist yet are left out.
    """
    parts = [
        _heading(run),
        _evaluation(run),
        _curve(run),
        _advice(run),
        _parameters(run),
        _listed("Plan", sections.plan_lines(run)),
        _plan_and_use(run),
        _phases(run),
        _listed("Used", sections.usage_lines(run)),
    ]
    return "\n\n".join("\n".join(lines) for part in parts if (lines := list(part)))


def _heading(run: ReportedRun) -> Iterator[str]:
    status, progress = run.status, run.status.progress
    yield f"# {text_of(run.name)}"
    yield ""
    message = f" ({text_of(status.message)})" if status.message else ""
    yield f"- phase: {status.phase or 'Pending'}{message}"
    yield f"- model: {text_of(run.spec.model.name)}"
    if progress is not None:
        made = steps(progress.step, progress.total_steps, progress.total_steps_estimated)
        yield f"- steps: {made}, attempt {progress.attempt}"
    if status.output is not None and status.output.adapter:
        yield f"- adapter: {_path(status.output.adapter)}"
    if status.output is not None and status.output.folder:
        yield f"- folder: {_path(status.output.folder)}"


def _evaluation(run: ReportedRun) -> Iterator[str]:
    result = run.status.evaluation
    if result is None:
        return
    yield "## Held-out evaluation"
    yield ""
    yield f"{result.rows} rows. {verdict(result)}"
    yield ""
    yield from table_lines(
        ("score", "base", "tuned", "difference", "95 % interval"), list(sections.scores(result))
    )


def _curve(run: ReportedRun) -> Iterator[str]:
    points = points_of_steps(run.steps)
    if not points:
        return
    yield "## Reward"
    yield ""
    yield "```"
    yield line_chart(points, width=CHART_WIDTH, height=CHART_HEIGHT)
    yield "```"


def _advice(run: ReportedRun) -> Iterator[str]:
    found = sections.advice(run)
    if not found:
        return
    yield "## Advice"
    yield ""
    for advice in found:
        about = f"{_path(advice.parameter)}: " if advice.parameter else ""
        yield f"- {about}{text_of(advice.message)} ({text_of(advice.rule)})"


def _parameters(run: ReportedRun) -> Iterator[str]:
    yield "## Parameters"
    yield ""
    rows = [
        (each.name, each.value, each.default, "changed" if each.changed else "")
        for each in sections.parameters(run)
    ]
    yield from table_lines(("parameter", "value", "default", ""), rows)


def _plan_and_use(run: ReportedRun) -> Iterator[str]:
    rows = sections.plan_and_use(run)
    if not rows:
        return
    yield "## Plan against use"
    yield ""
    yield from table_lines(("amount", "planned", "used"), rows)


def _phases(run: ReportedRun) -> Iterator[str]:
    found = sections.phases(run)
    if not found:
        return
    yield "## Time by phase"
    yield ""
    rows = [(each.name, duration(each.seconds), f"{each.share:.0%}") for each in found]
    yield from table_lines(("phase", "all steps", "share"), rows)


def _listed(heading: str, lines: Iterator[str]) -> Iterator[str]:
    items = [f"- {text_of(line)}" for line in lines]
    if items:
        yield f"## {heading}"
        yield ""
        yield from items


def table_lines(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a Markdown table. Cells may have any text: special characters are escaped."""
    for cells in (list(map(text_of, heading)), ["---"] * len(heading), *(map(text_of, row) for row in rows)):
        yield "| " + " | ".join(cells) + " |"


def text_of(text: str) -> str:
    """Return a text as one line for a Markdown page: special characters are escaped, secrets are replaced.

    Secrets are replaced because people share pages. Control characters are replaced too.
    """
    return escaped(cluster_text(text))


def _path(text: str) -> str:
    return code(cluster_text(text))
