"""``python -m rft_trainer.monitors.tracking.worker BACKEND``: runs one tracking library in its own process.

The trainer writes the calls of the library to the standard input of this process, one per line. The library
may hang, retry for hours or crash. So the trainer never waits for this process during the run. After the run
it waits for a limited time, and then kills this process.
"""

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rft_graders.confinement import set_dumpable
from rft_trainer.monitors.tracking.mlflow_tracker import MlflowTracker
from rft_trainer.monitors.tracking.protocol import End, RunInfo, Tracker
from rft_trainer.monitors.tracking.tensorboard_tracker import TensorboardTracker
from rft_trainer.monitors.tracking.wandb_tracker import WandbTracker

log = logging.getLogger("rft_trainer")

TRACKERS: dict[str, Callable[[], Tracker]] = {
    "wandb": WandbTracker,
    "mlflow": MlflowTracker,
    "tensorboard": TensorboardTracker,
}
SECRETS = ("WANDB_API_KEY", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD")
TRIES = 3
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 2.0, 60.0


class TrackerWorker:
    """Reads the trainer's calls from a stream, and makes them in a tracking library, such as MLflow's.

    Each kind of error is logged once. ``lost``: number of calls that failed after all retries.
    """

    def __init__(self, backend: str, tracker: Tracker, pause: Callable[[float], None] = time.sleep) -> None:
        self._backend = backend
        self._tracker = tracker
        self._pause = pause
        self._told: set[str] = set()
        self.lost = 0

    def run(self, lines: Iterable[str]) -> None:
        """Make the call that each line describes, until the lines end.

        A line is a JSON list with the name of the call and its arguments.
        """
        for line in lines:
            call, arguments = json.loads(line)
            if call == "start":
                self._until_started(RunInfo(**arguments))
            elif not self._made(self._bound(call, arguments), TRIES):
                self.lost += 1
        if self.lost:
            log.warning(
                "%s lacks the data of %d calls, which failed; metrics.jsonl has all steps",
                self._backend,
                self.lost,
            )

    def _until_started(self, run: RunInfo) -> None:
        """Open the run in the tracking backend, and retry without a limit until this succeeds.

        Other calls wait meanwhile.
        """
        self._made(lambda: self._tracker.start(run), tries=None)

    def _bound(self, call: str, arguments: Mapping[str, Any]) -> Callable[[], None]:
        if call == "finish":
            return lambda: self._tracker.finish(End(**arguments["end"]), arguments["numbers"])
        method = {"log": self._tracker.log, "evaluation": self._tracker.evaluation}[call]
        return lambda: method(arguments["step"], arguments["numbers"])

    def _made(self, call: Callable[[], None], tries: int | None) -> bool:
        """Make one call in the tracking library, with retries. Return whether the call succeeded at last.

        ``tries``: the maximum number of tries. None: no limit.
        """
        failures = 0
        while True:
            try:
                call()
                return True
            except Exception as error:  # the libraries may raise anything
                failures += 1
                self._tell(error)
                if failures == tries:
                    return False
            self._pause(min(FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 16), LONGEST_PAUSE_SECONDS))

    def _tell(self, error: Exception) -> None:
        kind = type(error).__name__
        if kind not in self._told:
            self._told.add(kind)
            said = without_secrets(str(error))[:500]
            log.warning("tracking: %s: %s: %s; the run continues", self._backend, kind, said)


def without_secrets(text: str) -> str:
    """Return a text with ``***`` in place of the values of the secret environment variables (``SECRETS``).

    The messages of a library's errors may contain them.
    """
    for secret in filter(None, map(os.environ.get, SECRETS)):
        text = text.replace(secret, "***")
    return text


def main(argv: list[str]) -> None:
    """Make the calls that standard input lists in the tracking library of the backend ``argv[0]``.

    Then exit without the exit hooks of the library, because they may hang.
    """
    # On Ctrl-C the trainer still logs its last row, so this process must not end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    set_dumpable(False)
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s"
    )
    # Otherwise the library would log each retry of a request.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    TrackerWorker(argv[0], TRACKERS[argv[0]]()).run(sys.stdin)
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
