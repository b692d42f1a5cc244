"""Shows the trainer's JSON lines as progress: one live line on a terminal, plain lines elsewhere."""

import json
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rft_cli.render.views import duration, number, steps

BAR_WIDTH = 30

STAGES = {
    "preparing": "preparing",
    "evaluatingBase": "evaluating the base policy",
    "training": "training",
    "evaluatingTuned": "evaluating the tuned policy",
    "finished": "finished",
}
"""Display texts of ``status.progress.stage``."""


def parse(line: str) -> dict[str, Any] | None:
    """Return the event of a line, or None where the line has none."""
    if not line.startswith("{"):
        return None
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


def describe(event: Mapping[str, Any]) -> str:
    """Return an event as one line of text."""
    match event:
        case {"event": "step"}:
            return ", ".join(_step_parts(event))
        case {"event": "stage", "stage": str(stage)}:
            return STAGES.get(stage, stage)
        case {"event": "resumed", "step": step}:
            return f"going on from step {step}"
        case {"event": "evaluation", "step": step, "reward": reward, "rows": rows}:
            policy = f"step {step}" if step else "the base policy"
            return f"held-out reward of {policy}: {number(reward)} ({rows} rows)"
    facts = ", ".join(f"{key} {_short(value)}" for key, value in event.items() if key != "event")
    return f"{event['event']}: {facts}" if facts else str(event["event"])


def _step_parts(event: Mapping[str, Any]) -> list[str]:
    shown = steps(event.get("step"), event.get("totalSteps"), event.get("totalStepsEstimated", True))
    parts = [f"step {shown}", f"reward {number(event.get('reward'))}"]
    if event.get("tokensPerSecond") is not None:
        parts.append(f"{event['tokensPerSecond']:.0f} tokens/s")
    if event.get("etaSeconds") is not None:
        parts.append(f"{duration(event['etaSeconds'])} left")
    return parts


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class ProgressView:
    """Shows events. On a terminal, steps update one live line; all other events are printed above it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        live = Live(console=console, transient=True, auto_refresh=False)
        self._live = live if console.is_terminal else None
        self._stage = "preparing"
        self._step: Mapping[str, Any] | None = None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, event: Mapping[str, Any]) -> None:
        """Show one event. ``end``, the last one, is only stored, for the caller."""
        if event["event"] == "end":
            return
        if event["event"] == "step":
            self._step = event
        elif event["event"] == "stage":
            self._stage = str(event.get("stage"))
        if self._live is None or event["event"] != "step":
            self._console.print(describe(event), markup=False)
        self.refresh()

    def note(self, message: str) -> None:
        """Print a line above the live line."""
        self._console.print(message, markup=False)

    def refresh(self) -> None:
        """Redraw the live line."""
        if self._live is not None:
            self._live.update(self._line(), refresh=True)

    def _line(self) -> Table:
        line = Table.grid(padding=(0, 1))
        if self._step is None or self._stage != "training":
            words = STAGES.get(self._stage, self._stage)
            line.add_row(ProgressBar(total=None, width=BAR_WIDTH, pulse=True), Text(words))
            return line
        total = self._step.get("totalSteps")
        bar = ProgressBar(total=total, completed=self._step["step"], width=BAR_WIDTH)
        line.add_row(bar, Text(", ".join(_step_parts(self._step))))
        return line
