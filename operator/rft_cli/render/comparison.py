"""Compares runs side by side, for ``rft compare``: tables, a reward chart, and the Markdown page with them.

All functions are pure.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from rft_advice.baseline import changes, warning
from rft_cli.local.reported import ReportedRun
from rft_cli.render import sections
from rft_cli.render.curve import points_of_steps
from rft_cli.render.page import table_lines, text_of
from rft_cli.render.plot import Point
from rft_cli.render.smoothing import centred_mean
from rft_cli.render.svg import Chart, Series, chart
from rft_cli.render.views import NONE, duration, number, steps
from rft_run.bootstrap import paired_bootstrap

LEAST_ROWS = 2
"""Minimum number of held-out rows that two runs have in common, for a comparison of their rewards."""


class Table(NamedTuple):
    """One table in a comparison of runs.

    - ``heading``: the headings of the columns.
    - ``rows``: the cells of each row.
    - ``note``: sentences about the table, such as why a run is missing from it. May be empty.
    """

    title: str
    heading: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


class Comparison(NamedTuple):
    """The comparison of two or more runs, as tables and a chart. Each run is compared with the first run.

    ``chart`` has the reward curves of all runs. It is None if no run has a reward.
    """

    names: Sequence[str]
    """One name for each run. All names are different."""
    tables: Sequence[Table]
    chart: Chart | None


def compare(runs: Mapping[str, ReportedRun], seed: int = 0) -> Comparison:
    """Compare runs: their parameters, results, rewards on the same held-out rows, and costs.

    The keys of ``runs`` are the names of the runs. All runs are compared with the first one. ``seed`` is the
    seed of the random resampling (bootstrap) that computes the 95 % intervals.
    """
    tables = [_differences(runs), _results(runs), _paired(runs, seed), _costs(runs)]
    return Comparison(list(runs), tables, rewards_chart(runs))


def curves(runs: Mapping[str, ReportedRun]) -> list[tuple[str, list[Point]]]:
    """Return the smoothed reward curve (centred mean) of each run, as pairs of the run's name and its points.

    Runs without a reward are left out.
    """
    found = ((name, centred_mean(points_of_steps(run.steps))) for name, run in runs.items())
    return [(name, points) for name, points in found if points]


def rewards_chart(runs: Mapping[str, ReportedRun]) -> Chart | None:
    """Return the chart with the smoothed reward curve of each run, or None if no run has a reward."""
    series = [Series(name, points, colour=index) for index, (name, points) in enumerate(curves(runs))]
    return chart("Mean reward of a step's rollouts, by step, smoothed by a centred mean", series)


def as_markdown(found: Comparison) -> str:
    """Return the Markdown page of a comparison of runs, with all of its tables. The chart is left out."""
    return "\n\n".join("\n".join(lines) for lines in _markdown(found))


def _markdown(found: Comparison) -> Iterator[list[str]]:
    yield [f"# {text_of(' and '.join(found.names))}"]
    for table in found.tables:
        yield [f"## {table.title}"]
        if table.rows:
            yield list(table_lines(table.heading, table.rows))
        if table.note:
            yield [text_of(table.note)]


def _differences(runs: Mapping[str, ReportedRun]) -> Table:
    (first, *others) = runs.values()
    found = [changes(first.spec, other.spec) for other in others]
    paths = dict.fromkeys(change.path for each in found for change in each)
    before = {change.path: change.from_ or NONE for each in found for change in each}
    rows = []
    for path in paths:
        after = [{change.path: change.to or NONE for change in each} for each in found]
        rows.append((path, before[path], *(each.get(path, before[path]) for each in after)))
    said = dict.fromkeys(message for each in found if (message := warning(each)))
    note = " ".join(said) if rows else "Every parameter has the same value."
    return Table("What differs", ("parameter", *runs), rows, note)


def _results(runs: Mapping[str, ReportedRun]) -> Table:
    heading = ("run", "phase", "steps", "reward at the end", "base", "tuned", "difference", "95 % interval")
    return Table("Results", heading, [_result(name, run) for name, run in runs.items()])


def _result(name: str, run: ReportedRun) -> tuple[str, ...]:
    progress, curve = run.status.progress, centred_mean(points_of_steps(run.steps))
    made = NONE
    if progress is not None:
        made = steps(progress.step, progress.total_steps, progress.total_steps_estimated)
    evaluation = run.status.evaluation
    rows = list(sections.scores(evaluation)) if evaluation is not None and evaluation.reward else []
    scores = rows[0][1:] if rows else (NONE,) * 4
    return (name, run.status.phase or "Pending", made, number(curve[-1][1] if curve else None), *scores)


def _paired(runs: Mapping[str, ReportedRun], seed: int) -> Table:
    """Return the table that compares the mean held-out reward of each run with that of the first run.

    The means of two runs are over the rows that are in the last evaluation of both runs. The table also has
    the difference of the two means, with its 95 % interval. ``seed`` is the seed of the bootstrap.
    """
    (first_name, first), *others = runs.items()
    rows, notes = [], []
    for name, run in others:
        before, after = _rewards(first), _rewards(run)
        common = [row for row in before if row in after]
        if len(common) < LEAST_ROWS:
            notes.append(f"{name}: {_why_not(first, run)}.")
            continue
        left, right = [before[row] for row in common], [after[row] for row in common]
        found = paired_bootstrap(left, right, seed)
        rows.append(
            (
                name,
                str(len(common)),
                number(sum(left) / len(left)),
                number(sum(right) / len(right)),
                f"{found.mean:+.3f}",
                f"{found.low:+.3f} to {found.high:+.3f}",
            )
        )
        if run.spec.graders != first.spec.graders:
            notes.append(
                f"{name}: the graders differ from those of {first_name}, so rewards may not be comparable."
            )
        elif found.low <= 0 <= found.high:
            notes.append(
                f"{name}: the interval includes 0, so these rows show no clear difference from {first_name}."
            )
    heading = ("run", "common rows", first_name, "this run", "difference", "95 % interval")
    return Table("The same held-out rows", heading, rows, " ".join(notes))


def _rewards(run: ReportedRun) -> dict[str, float]:
    """Return the reward of each row in the run's last held-out evaluation. The key is a digest of the row.

    The result is empty if the run has no evaluation, or if the evaluation has no digests of rows.
    """
    last = run.tuned or run.base
    found = last.rewards_by_row() if last is not None else {}
    return {digest: reward for (_, digest), reward in found.items() if digest}


def _why_not(first: ReportedRun, run: ReportedRun) -> str:
    for each in (first, run):
        if each.base is None:
            return (
                f"{each.name} has no held-out evaluation on this machine; name the folder of a run with one"
            )
        if not _rewards(each):
            return f"the evaluation of {each.name} does not say which rows it used"
    return "the two runs have fewer than two held-out rows in common"


def _costs(runs: Mapping[str, ReportedRun]) -> Table:
    heading = ("run", "time of all steps", "GPU-hours", "prompt tokens", "completion tokens", "cost")
    return Table("Cost", heading, [_cost(name, run) for name, run in runs.items()])


def _cost(name: str, run: ReportedRun) -> tuple[str, ...]:
    usage, seconds = run.status.usage, sum(step.step_seconds or 0.0 for step in run.steps)
    taken = duration(seconds) if seconds else NONE
    if usage is None:
        return (name, taken, *[NONE] * 4)
    return (
        name,
        taken,
        f"{usage.gpu_seconds / 3600:.2f}",
        f"{usage.prompt_tokens:,}",
        f"{usage.completion_tokens:,}",
        NONE if usage.cost is None else f"{usage.cost:.2f}",
    )
