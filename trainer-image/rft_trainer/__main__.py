"""``python -m rft_trainer --config FILE``: runs one attempt. The exit code is one of ``rft_run.exit_codes``.

An attempt is one start of the trainer for a run. With ``--evaluate`` the program trains nothing, but
evaluates policies on the held-out rows (see ``rft_trainer.score``). JSON lines for ``rft run`` go to standard
output, and all other output goes to standard error.
"""

import signal

if __name__ == "__main__":
    # The first process of a container (PID 1) has no default action for SIGTERM: without a handler the kernel
    # drops the signal. A blocked signal stays pending until the imports are done and the handler is set.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))

import argparse
import logging
import os
import sys
from pathlib import Path
from types import FrameType

from rft_api.problems import InvalidManifest
from rft_run.config import read_run_config
from rft_run.exit_codes import ExitCode
from rft_trainer.runtime import allocator

log = logging.getLogger("rft_trainer")


class StopFlag:
    """A flag that SIGTERM and SIGINT set.

    The trainer reads the flag often, and stops if the flag is set. A training run saves a checkpoint before
    it stops.
    """

    def __init__(self) -> None:
        self._set = False
        for number in allocator.STOP_SIGNALS:
            signal.signal(number, self._on_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, allocator.STOP_SIGNALS)  # see allocator.preload

    def __call__(self) -> bool:
        """Return whether SIGTERM or SIGINT has asked this process to stop."""
        return self._set

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._set = True


def main(argv: list[str] | None = None) -> int:
    """Run one attempt or, with ``--evaluate``, one evaluation. Return the exit code."""
    should_stop = StopFlag()
    parser = argparse.ArgumentParser(prog="python -m rft_trainer")
    parser.add_argument("--config", type=Path, required=True, help="a RunConfig as JSON")
    parser.add_argument("--evaluate", action="store_true", help="evaluate on held-out rows, without training")
    parser.add_argument("--limit", type=int, help="with --evaluate: maximum number of rows; absent: all")
    parser.add_argument(
        "--adapter", type=Path, help="with --evaluate: the folder of a tuned policy's adapter"
    )
    parser.add_argument("--step", type=int, default=1, help="the step after which --adapter was saved")
    arguments = parser.parse_args(argv)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # Progress bars of transformers and the hub would fill the log. Both libraries read these variables when
    # they are imported.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Waiting OpenMP threads must sleep, not spin. On a shared machine, spinning threads use the cores that
    # other threads need to finish, and an update takes several times longer. torch reads this variable when
    # it is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        config = read_run_config(arguments.config.read_text(encoding="utf-8"))
    except (OSError, InvalidManifest) as error:
        log.error("%s: %s", arguments.config, error)
        return ExitCode.CONFIGURATION
    if config.device == "cpu":
        allocator.preload(should_stop)
    # Imported late, because they import torch and transformers, which takes seconds.
    if arguments.evaluate:
        from rft_trainer.score import ScoredPolicy, score

        tuned = ScoredPolicy(arguments.step, arguments.adapter) if arguments.adapter is not None else None
        return score(config, tuned, arguments.limit, should_stop)
    from rft_trainer.attempt import attempt

    return attempt(config, should_stop)


if __name__ == "__main__":
    sys.exit(main())
