"""Runs the trainer for ``rft run``, shows its progress and explains its ending."""

import os
from pathlib import Path
from typing import Any

from rft_cli.local.process import Supervisor
from rft_cli.render.console import err, out
from rft_cli.render.endings import explain
from rft_cli.render.progress import ProgressView, parse
from rft_cli.render.summary import print_summary
from rft_run.exit_codes import ExitCode

LOG_FILE = "trainer.log"
LOG_TAIL = 15
"""Number of lines of the log that are shown when there is no message."""

CLEAN = (ExitCode.OK, ExitCode.PREEMPTED)


def train(command: list[str], folder: Path) -> int:
    """Run the trainer to its end with a progress display, and return its exit code."""
    log = folder / LOG_FILE
    supervisor = Supervisor(command, log, {**os.environ, "PYTHONUNBUFFERED": "1"})
    told = False
    end: dict[str, Any] = {}
    with ProgressView(out()) as view:

        def on_line(line: str) -> None:
            event = parse(line)
            if event is None:
                with log.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")
                return
            if event["event"] == "end":
                end.update(event)
            view.show(event)

        def on_tick() -> None:
            nonlocal told
            if supervisor.stopping and not told:
                view.note("stopping: waiting for the checkpoint; Ctrl-C again kills")
                told = True
            view.refresh()

        exit_code = supervisor.run(on_line, on_tick)
    ending = explain(exit_code)
    sentence = ": ".join(part for part in ending if part)
    if exit_code in CLEAN:
        reason = f" ({end['reason']})" if exit_code == ExitCode.OK and end.get("reason") else ""
        out().print(sentence + reason, markup=False)
        print_summary(folder)
    else:
        err().print(end.get("message") or _tail(log), markup=False)
        err().print(f"error: exit code {exit_code}: {sentence} ({log})", markup=False)
    return exit_code


def _tail(log: Path) -> str:
    """Return the last lines of the log, for a trainer that ended without a message."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL:]
    return "\n".join(f"  {line}" for line in lines)
