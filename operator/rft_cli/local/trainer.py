"""Starts the trainer as a child process of ``rft``, and passes on the events that it prints until it ends."""

import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from rft_cli.errors import UNREADABLE, UserError
from rft_cli.local.process import Supervisor
from rft_run import run_files
from rft_run.events import EndEvent, EvaluationEvent, FindingEvent, ResumedEvent, StageEvent, StepEvent, parse

ProgressEvent = StageEvent | ResumedEvent | StepEvent | EvaluationEvent | FindingEvent
"""The type of all events that the trainer prints, except ``EndEvent``, which is always its last event."""


class Ended(NamedTuple):
    """How the trainer process ended: its exit code, and the last event that it printed."""

    exit_code: int
    """The exit code of the trainer process. If a signal ended the process: 128 plus the number of the signal.
    """
    event: EndEvent | None
    """The last event, with the reason, or None if the trainer ended without it, for example by SIGKILL."""


def trainer_command() -> list[str]:
    """Return the command that starts the trainer, without the trainer's arguments.

    Raises:
        UserError: if the trainer is not installed in this environment.
    """
    if importlib.util.find_spec("rft_trainer") is None:
        raise UserError("the trainer is not installed here: pip install 'rft-operator[trainer]'", UNREADABLE)
    # -P: modules in the working folder, which may come with a stranger's manifest, are never imported.
    return [sys.executable, "-P", "-m", "rft_trainer"]


def train(
    command: Sequence[str],
    log: Path,
    on_event: Callable[[ProgressEvent], None],
    on_tick: Callable[[bool], None],
) -> Ended:
    """Run the trainer until it ends. Return its exit code and its last event.

    - ``command``: the command that starts the trainer, with all arguments
    - ``log``: the file to which all output of the trainer that is not an event is appended
    - ``on_event``: is called with each event, except the ``EndEvent``, which is in the result
    - ``on_tick``: is called several times a second with one argument: whether the trainer was asked to stop
    """
    # PYTHONSAFEPATH has the effect of -P in the processes that the trainer starts.
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1"}
    supervisor = Supervisor(command, log, environment)
    end: EndEvent | None = None

    def on_line(line: str) -> None:
        nonlocal end
        event = parse(line)
        if event is None:
            with run_files.writable(log) as file:
                file.write(f"{line}\n".encode(errors="replace"))
        elif isinstance(event, EndEvent):
            end = event
        else:
            on_event(event)

    exit_code = supervisor.run(on_line, lambda: on_tick(supervisor.stopping))
    return Ended(exit_code, end)


def tail(log: Path, lines: int) -> list[str]:
    """Return the last lines of the trainer's log, at most ``lines`` of them.

    Raises UnreadableFile if the log is not a regular file, and OSError.
    """
    return run_files.end(log).decode(errors="replace").splitlines()[-lines:]
