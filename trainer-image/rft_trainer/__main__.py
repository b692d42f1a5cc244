"""``python -m rft_trainer --config FILE``: runs one attempt and ends with a code of ``rft_api.exitcodes``.

Standard output carries JSON lines for ``rft run``; everything else goes to standard error.
"""

import argparse
import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType

from pydantic import ValidationError

from rft_api.exitcodes import REASONS, ExitCode
from rft_api.report import Ending
from rft_api.runconfig import RunConfig
from rft_trainer.errors import ConfigurationError, MemoryExhausted, TrainerError, VolumeError
from rft_trainer.loop import Run
from rft_trainer.progress import Events
from rft_trainer.report import Reporter

log = logging.getLogger("rft_trainer")


class StopFlag:
    """Set by SIGTERM and SIGINT. Only a flag: work stops where it is safe to stop."""

    def __init__(self) -> None:
        self._set = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def __call__(self) -> bool:
        """Whether the run was asked to stop."""
        return self._set

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._set = True


def main(argv: list[str] | None = None) -> int:
    """Run one attempt; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m rft_trainer")
    parser.add_argument("--config", type=Path, required=True, help="a RunConfig as JSON")
    arguments = parser.parse_args(argv)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # transformers' and the hub's progress bars would fill the log.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    events = Events()
    try:
        config = RunConfig.model_validate_json(arguments.config.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        log.error("%s: %s", arguments.config, error)
        return ExitCode.CONFIGURATION
    should_stop = StopFlag()
    with Reporter(config) as reporter:
        return _attempt(config, reporter, events, should_stop)


def _attempt(config: RunConfig, reporter: Reporter, events: Events, should_stop: StopFlag) -> int:
    """Run, and tell how it ended."""
    run: Run | None = None
    try:
        run = Run(config, reporter, events, should_stop)
        ending = Ending(exit_code=ExitCode.OK, reason=run.train())
    except Exception as raised:
        error = classify(raised)
        log.log(
            logging.INFO if error.exit_code == ExitCode.PREEMPTED else logging.ERROR,
            "%s",
            error,
            exc_info=raised if error.exit_code == ExitCode.UNEXPECTED else None,
        )
        ending = Ending(
            exit_code=error.exit_code,
            reason=REASONS.get(error.exit_code, error.exit_code.name.title()),
            message=str(error)[:2048],
        )
    events.emit("end", exitCode=int(ending.exit_code), reason=ending.reason, message=ending.message)
    if run is not None:
        reporter.publish(run.snapshot(), ending=ending, force=True)
    return ending.exit_code


def classify(error: Exception) -> TrainerError:
    """Give any exception its place in the tree."""
    if isinstance(error, TrainerError):
        return error
    if isinstance(error, MemoryError):
        return MemoryExhausted(str(error) or "out of memory")
    if isinstance(error, PermissionError):
        return VolumeError(str(error))
    if isinstance(error, ValidationError):
        return ConfigurationError(str(error))
    return TrainerError(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    sys.exit(main())
