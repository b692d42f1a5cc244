"""``rft watch``: shows a job in the cluster live until it ends."""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from rft_api.conditions import TERMINAL_PHASES
from rft_cli.commands.get import job_table
from rft_cli.options import Context, Namespace, connect
from rft_cli.render.console import out, reports_errors
from rft_cli.render.curve import chart_width, points_of_job
from rft_cli.render.plot import line_chart
from rft_cli.render.views import COLUMNS, row

SUCCEEDED = "Succeeded"


@reports_errors
def watch(
    name: Annotated[str, typer.Argument(help="The job.")],
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing: only the exit code.")] = False,
    context: Context = None,
    namespace: Namespace = None,
) -> None:
    """Follow a job until it ends. Exit code 0: Succeeded; 1: Failed or Cancelled."""
    console = Console(quiet=True, force_terminal=False) if quiet else out()
    exit_with_its_end(lambda: connect(context, namespace).changes(name), console)


def exit_with_its_end(changes: Callable[[], Iterable[dict[str, Any]]], console: Console) -> NoReturn:
    """Follow a job and exit with 0 (Succeeded), 1 (Failed, Cancelled) or 130 (Ctrl-C, at any moment)."""
    try:
        phase = follow(changes(), console)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    raise typer.Exit(0 if phase == SUCCEEDED else 1)


def follow(changes: Iterable[dict[str, Any]], console: Console) -> str:
    """Show all changes until a final phase, and return that phase."""
    phase = ""
    if console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            for job in changes:
                live.update(picture(job, console.width), refresh=True)
                if (phase := phase_of(job)) in TERMINAL_PHASES:
                    break
        return phase
    shown = ""
    for job in changes:
        if (line := plain_line(job)) != shown:
            console.print(line, markup=False)
            shown = line
        if (phase := phase_of(job)) in TERMINAL_PHASES:
            break
    return phase


def phase_of(job: Mapping[str, Any]) -> str:
    """Return ``status.phase``; Pending for a job that the operator has not processed yet."""
    return (job.get("status") or {}).get("phase") or "Pending"


def plain_line(job: Mapping[str, Any]) -> str:
    """Return a job as one line, without values that change with time alone, such as its age."""
    shown = row(job, datetime.now(UTC))
    parts = [shown.phase, f"step {shown.steps}", f"reward {shown.reward}", f"eta {shown.eta}"]
    line = ", ".join(part for part in parts if not part.endswith(" -"))
    return f"{line}: {shown.message}" if shown.message else line


def picture(job: dict[str, Any], width: int) -> Group:
    """Return the live view of a job: its row, its message and its curve."""
    points = points_of_job(job)
    parts: list[Any] = [job_table([job], COLUMNS, datetime.now(UTC))]
    if message := row(job, datetime.now(UTC)).message:
        parts.append(Text(message))
    if points:
        chart = line_chart(points, width=chart_width(width))
        parts.append(Text(f"\n{chart}", no_wrap=True))
    return Group(*parts)
