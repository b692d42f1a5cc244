"""Shows the jobs of a cluster as a table, and shows the changes of one job until the job ends."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rft_api.conditions import RESTING_PHASES
from rft_api.controls import one_line
from rft_cli.render.console import Terminal
from rft_cli.render.curve import chart_width, points_of_job
from rft_cli.render.plot import line_chart
from rft_cli.render.views import COLUMNS, phase_of, plain_line, row

SUCCEEDED = "Succeeded"
MESSAGE = "message"
"""Name of the column of ``rft get`` with the job's message. Only its cells may have several lines."""
INTERRUPTED = 130
"""Exit code, after Ctrl-C, of commands that watch a job or download its folder."""


def job_table(jobs: Sequence[Mapping[str, Any]], columns: Sequence[str], now: datetime) -> Table:
    """Return a table of RFTJobs without borders, like the tables of kubectl. Each job has a row.

    - ``columns``: the names of the columns, which are fields of ``JobRow``
    - ``now``: the current time, from which the age of a job is computed
    """
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column.upper(), no_wrap=column != MESSAGE)
    for job in jobs:
        shown = row(job, now)
        cells = {**{name: one_line(text) for name, text in shown._asdict().items()}, MESSAGE: shown.message}
        table.add_row(*(cells[column] for column in columns))
    return table


def watched(changes: Callable[[], Iterable[Mapping[str, Any]]], console: Terminal) -> int:
    """Show all changes of a job until the job ends, and return the exit code of the command.

    The code is 0 if the job is Succeeded, and 1 if it is Failed, Cancelled or Invalid. After Ctrl-C it is
    130. ``changes`` is a function whose result yields the job as it is now, and again after each change.
    """
    try:
        phase = follow(changes(), console)
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0 if phase == SUCCEEDED else 1


def follow(changes: Iterable[Mapping[str, Any]], console: Terminal) -> str:
    """Show changes of a job until its phase is Succeeded, Failed, Cancelled or Invalid. Return this phase.

    ``changes`` yields the job as it is now, and again after each change. A terminal shows only
    the newest state of the job. If the output is not a terminal, it gets a line for each change.
    """
    if not console.is_terminal:
        return print_changes(changes, console, RESTING_PHASES)
    phase = ""
    with Live(console=console, auto_refresh=False) as live:
        for job in changes:
            live.update(picture(job, console.width), refresh=True)
            if (phase := phase_of(job)) in RESTING_PHASES:
                break
    return phase


def print_changes(changes: Iterable[Mapping[str, Any]], console: Terminal, until: Collection[str]) -> str:
    """Print a line for each change of a job until its phase is one of ``until``. Return this phase.

    ``changes`` yields the job as it is now, and again after each change. A change is not printed if its line
    is equal to the line before it.
    """
    phase, shown = "", ""
    for job in changes:
        if (line := plain_line(job)) != shown:
            console.print(line, markup=False)
            shown = line
        if (phase := phase_of(job)) in until:
            break
    return phase


def picture(job: Mapping[str, Any], width: int) -> Group:
    """Return the view of a job for a terminal: a table with its state, its message, and its reward curve.

    ``job`` is the RFTJob as JSON. ``width`` is the width of the terminal in characters.
    """
    points = points_of_job(job)
    parts: list[Any] = [job_table([job], COLUMNS, datetime.now(UTC))]
    if message := row(job, datetime.now(UTC)).message:
        parts.append(Text(message))
    if points:
        chart = line_chart(points, width=chart_width(width))
        parts.append(Text(f"\n{chart}", no_wrap=True))
    return Group(*parts)
