"""Copies the adapter to the hub or bucket of ``spec.output``. A failed copy does not make the run fail."""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from rft_run.config import RunConfig
from rft_run.destination import Destination, HubDestination, destination_of
from rft_run.folder import RunFolder, adapter_of
from rft_trainer.push import push
from rft_trainer.remote.sending import Pushed, PushError

log = logging.getLogger(__name__)

WAITS = (5.0, 20.0, 60.0)
"""Seconds before the second, third and fourth attempt to copy the adapter.

Only a copy with a temporary failure is tried again, because the GPUs of the run are idle during the waits.
"""
_POLL_SECONDS = 0.5


class Delivered(NamedTuple):
    """The result of copying the adapter after a run.

    - ``message``: a sentence for the message of the run.
    - ``address``: the address of the copy. None: the copy failed.
    """

    message: str
    address: str | None


def deliver(
    config: RunConfig,
    best_step: int,
    should_stop: Callable[[], bool],
    send: Callable[[Path, Destination], Pushed] = push,
) -> Delivered | None:
    """Copy the run's adapter to the hub or bucket of ``spec.output``. Return None if the job names neither.

    - ``best_step``: the step with the highest held-out reward. 0: there is none. The adapter of this step is
      copied if it is not 0 and ``spec.output.adapter`` is ``best``. Otherwise the final adapter is copied.
    - ``send``: the function that copies a folder to a destination.

    After a temporary failure the copy is tried again, unless the run should stop. A failed copy raises no
    error: the message of the result says where the adapter is, and how to copy it.
    """
    output = config.spec.output
    to = destination_of(output) if output is not None else None
    if output is None or to is None:
        return None
    folder, best = RunFolder(Path(config.run_dir)), output.adapter == "best" and best_step > 0
    adapter = adapter_of(folder.checkpoint_of(best_step)) if best else folder.adapter
    what = f"The adapter of step {best_step}, the best one," if best else "The adapter"
    try:
        done = _repeated(lambda: send(adapter, to), should_stop)
    except Exception as error:  # the run is complete: a failed copy must not make it fail
        unexpected = not isinstance(error, PushError)
        reason = f"{to}: {type(error).__name__}" if unexpected else str(error)
        log.error("the adapter was not pushed: %s", reason, exc_info=error if unexpected else None)
        again = _command(config, to, best)
        where = "on the volume" if _in_a_pod() else "in the run's folder"
        return Delivered(f"{what} was not pushed, and is {where}: {reason}. To push it: {again}", None)
    log.info("the adapter is pushed to %s: %d files sent", done.address, len(done.sent))
    return Delivered(f"{what} is pushed to {done.address}", done.address)


def _repeated(attempt: Callable[[], Pushed], should_stop: Callable[[], bool]) -> Pushed:
    """Call ``attempt`` until it succeeds, and return its result.

    It is called again only after a temporary failure, and at most once for each entry of ``WAITS``. If
    ``should_stop`` returns True, it is not called again. Raises the last PushError.
    """
    for wait in WAITS:
        try:
            return attempt()
        except PushError as error:
            if not error.temporary:
                raise
            log.warning("%s; tried again in %g s", error, wait)
            end = time.monotonic() + wait
            while time.monotonic() < end:
                if should_stop():
                    raise
                time.sleep(_POLL_SECONDS)
    return attempt()


def _in_a_pod() -> bool:
    return "RFT_POD_NAME" in os.environ


def _command(config: RunConfig, to: Destination, best: bool) -> str:
    """Return the ``rft push`` command with which a user can copy the run's adapter to ``to``.

    ``best``: whether the adapter with the highest held-out reward is copied, not the final one.
    """
    job = config.job
    source = f"{job.name} -n {job.namespace}" if _in_a_pod() else config.run_dir
    options = " --best" if best else ""
    options += " --public" if isinstance(to, HubDestination) and not to.private else ""
    return f"rft push {source} {to}{options}"
