"""Shows the progress of a run from the events of its trainer: a live line on a terminal, else plain lines."""

from types import TracebackType
from typing import Self

from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rft_api.status import Stage
from rft_cli.local.trainer import ProgressEvent
from rft_cli.render.console import Terminal
from rft_cli.render.views import duration, number, steps
from rft_run.events import EvaluationEvent, FindingEvent, ResumedEvent, StageEvent, StepEvent

BAR_WIDTH = 30

STAGES: dict[Stage, str] = {
    "preparing": "preparing",
    "evaluatingBase": "evaluating the base policy",
    "training": "training",
    "evaluatingTuned": "evaluating the tuned policy",
    "finished": "finished",
}
"""The texts that are shown for the values of ``status.progress.stage``."""


def describe(event: ProgressEvent) -> str:
    """Return a line of text about an event of the trainer, such as the end of a step or an evaluation."""
    match event:
        case StepEvent():
            return ", ".join(_step_parts(event))
        case StageEvent():
            return STAGES[event.stage]
        case ResumedEvent():
            return f"resumed after step {event.step}"
        case EvaluationEvent():
            policy = f"step {event.step}" if event.step else "the base policy"
            return f"held-out reward of {policy}: {number(event.reward)} ({event.rows} rows)"
        case FindingEvent():
            return f"preflight: {event.parameter}: {event.message}"


def _step_parts(event: StepEvent) -> list[str]:
    shown = steps(event.step, event.total_steps, event.total_steps_estimated)
    parts = [f"step {shown}", f"reward {number(event.reward)}"]
    if event.tokens_per_second is not None:
        parts.append(f"{event.tokens_per_second:.0f} tokens/s")
    if event.eta_seconds is not None:
        parts.append(f"{duration(event.eta_seconds)} left")
    return parts


class ProgressView:
    """Shows the progress of a run from the events of its trainer. It is a context manager.

    On a terminal, the events of steps update one live line, and all other events are printed above this line.
    If the output is not a terminal, each event is printed as a line.
    """

    def __init__(self, console: Terminal, awaited: str = "the checkpoint") -> None:
        """Create the view. ``console`` is where it shows events.

        ``awaited`` is used in a message after the command has asked the trainer to stop. It names what the
        command then waits for.
        """
        self._console = console
        self._awaited = awaited
        live = Live(console=console, transient=True, auto_refresh=False)
        self._live = live if console.is_terminal else None
        self._stage: Stage = "preparing"
        self._step: StepEvent | None = None
        self._told = False

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, event: ProgressEvent) -> None:
        """Show one event of the trainer."""
        if isinstance(event, StepEvent):
            self._step = event
        elif isinstance(event, StageEvent):
            self._stage = event.stage
        if self._live is None or not isinstance(event, StepEvent):
            self._console.print(describe(event), markup=False)
        self._refresh()

    def tick(self, stopping: bool) -> None:
        """Redraw the live line. The command calls this method several times a second.

        ``stopping`` says whether the trainer was asked to stop. The first call in which it is true also
        prints what the command now waits for.
        """
        if stopping and not self._told:
            self._console.print(
                f"stopping: waiting for {self._awaited}; Ctrl-C again kills the trainer", markup=False
            )
            self._told = True
        self._refresh()

    def _refresh(self) -> None:
        if self._live is not None:
            self._live.update(self._line(), refresh=True)

    def _line(self) -> Table:
        line = Table.grid(padding=(0, 1))
        if self._step is None or self._stage != "training":
            pulse = ProgressBar(total=None, width=BAR_WIDTH, pulse=True)
            line.add_row(pulse, Text(STAGES[self._stage]))
            return line
        bar = ProgressBar(total=self._step.total_steps, completed=self._step.step, width=BAR_WIDTH)
        line.add_row(bar, Text(", ".join(_step_parts(self._step))))
        return line
