"""Runs one attempt, which is one start of the trainer for a run, and reports how the attempt ended.

Errors that end the attempt are converted into exit codes here.
"""

import logging
from collections.abc import Callable
from contextlib import ExitStack

from pydantic import ValidationError

from rft_api.conditions import COMPLETED_BECAUSE
from rft_run.cluster_text import cluster_text
from rft_run.config import RunConfig
from rft_run.errors import ConfigurationError, MemoryExhausted, TrainerError, VolumeError
from rft_run.exit_codes import REASONS, ExitCode
from rft_run.report import MAX_ENDING, Ending
from rft_trainer.loop import Run
from rft_trainer.monitors.monitors import end_event
from rft_trainer.monitors.progress import Events
from rft_trainer.monitors.report import Reporter
from rft_trainer.monitors.tracking.trackers import Trackers
from rft_trainer.runtime import machine, memory

log = logging.getLogger("rft_trainer")


def attempt(config: RunConfig, should_stop: Callable[[], bool]) -> int:
    """Run one attempt, report how it ended, and return the exit code of the process.

    An attempt is one start of the trainer for a run. ``should_stop`` returns True once the trainer was asked
    to stop. Errors of the run are not raised: they become the exit code.
    """
    events = Events()
    kills = machine.out_of_memory_kills()
    with Reporter(config) as reporter, ExitStack() as stack:
        run: Run | None = None
        try:
            memory.refuse_too_little(config)
            trackers = stack.enter_context(Trackers(config))
            run = Run(config, reporter, events, should_stop, trackers)
            reason = run.train()
            message = cluster_text(" ".join([COMPLETED_BECAUSE[reason], *run.deliver()]), MAX_ENDING)
            ending = Ending(exit_code=ExitCode.OK, reason=reason, message=message)
        except Exception as raised:
            ending = ending_of(memory.after_kills(raised, config, kills))
        events.emit(end_event(ending))
        if run is not None:
            run.monitors.ended(ending)
    return ending.exit_code


def ending_of(raised: Exception) -> Ending:
    """Log the error ``raised``, which ended an attempt. Return the exit code, reason and message for it."""
    error = classify(raised)
    log.log(
        logging.INFO if error.exit_code == ExitCode.PREEMPTED else logging.ERROR,
        "%s",
        error,
        exc_info=raised if error.exit_code == ExitCode.UNEXPECTED else None,
    )
    return Ending(
        exit_code=error.exit_code,
        reason=REASONS.get(error.exit_code, error.exit_code.name.title()),
        message=cluster_text(str(error), MAX_ENDING),
    )


def classify(error: Exception) -> TrainerError:
    """Return ``error`` as a ``TrainerError``, whose class has the exit code for the operator.

    A ``TrainerError`` is returned unchanged.
    """
    if isinstance(error, TrainerError):
        return error
    if isinstance(error, MemoryError):
        return MemoryExhausted(str(error) or "out of memory")
    if isinstance(error, PermissionError):
        return VolumeError(str(error))
    if isinstance(error, ValidationError):
        return ConfigurationError(str(error))
    return TrainerError(f"{type(error).__name__}: {error}")
