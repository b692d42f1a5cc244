"""``python -m rft_trainer --config FILE``: runs one attempt and ends with a code of ``rft_api.exitcodes``.

Standard output carries JSON lines for ``rft run``; everything else goes to standard error.
"""

import signal

if __name__ == "__main__":
    # The first process of a container has no default action for SIGTERM: it would be lost until there is a
    # handler. Blocked, it waits while the rest is imported.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))

import argparse
import logging
import os
import sys
from pathlib import Path
from types import FrameType

from rft_api.exitcodes import ExitCode
from rft_api.problems import InvalidManifest
from rft_api.runconfig import read_run_config
from rft_trainer import allocator

log = logging.getLogger("rft_trainer")


class StopFlag:
    """Set by SIGTERM and SIGINT. Only a flag: work stops where it is safe to stop."""

    def __init__(self) -> None:
        self._set = False
        for number in allocator.STOP_SIGNALS:
            signal.signal(number, self._on_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, allocator.STOP_SIGNALS)  # see allocator.preload

    def __call__(self) -> bool:
        """Whether the run was asked to stop."""
        return self._set

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._set = True


def main(argv: list[str] | None = None) -> int:
    """Run one attempt; returns the exit code."""
    should_stop = StopFlag()
    parser = argparse.ArgumentParser(prog="python -m rft_trainer")
    parser.add_argument("--config", type=Path, required=True, help="a RunConfig as JSON")
    arguments = parser.parse_args(argv)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # transformers' and the hub's progress bars would fill the log; read when those are imported.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # A thread that waits must not spin while the one it waits for has no core: on a shared machine that
    # makes an update several times slower. Read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        config = read_run_config(arguments.config.read_text(encoding="utf-8"))
    except (OSError, InvalidManifest) as error:
        log.error("%s: %s", arguments.config, error)
        return ExitCode.CONFIGURATION
    if config.device == "cpu":
        allocator.preload(should_stop)
    # torch and transformers come with it, which takes seconds.
    from rft_trainer.attempt import attempt

    return attempt(config, should_stop)


if __name__ == "__main__":
    sys.exit(main())
