"""Runs kopf until a stop signal arrives, or until one of kopf's root tasks ends. Then the process ends within
``END_SECONDS``.

The root tasks are those that ``kopf.spawn_tasks`` returns.
"""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Collection

import kopf

from rft_operator.operator import Operator

END_SECONDS = 8.0
"""Longest time in seconds from the end of the first of kopf's root tasks to the end of this process. It must
be shorter than the 30 s after which Kubernetes kills a pod that got the stop signal."""
_log = logging.getLogger(__name__)


class KopfEnded(Exception):
    """kopf ended without a stop signal."""


def run(
    operator: Operator,
    registry: kopf.OperatorRegistry,
    settings: kopf.OperatorSettings,
    namespaces: tuple[str, ...],
) -> None:
    """Run kopf and ``operator`` until SIGTERM or SIGINT. If ``namespaces`` is empty, the watches are
    cluster-wide.

    When one of kopf's root tasks ends, this function stops the others. If the process has not ended after
    ``END_SECONDS``, it is ended by force.

    Raises:
        Exception: the error of a root task of kopf that failed.
        KopfEnded: if a root task ended without an error, and there was no signal.
    """
    asyncio.run(_run(operator, registry, settings, namespaces))


async def _run(
    operator: Operator,
    registry: kopf.OperatorRegistry,
    settings: kopf.OperatorSettings,
    namespaces: tuple[str, ...],
) -> None:
    stop = asyncio.Event()
    before = asyncio.all_tasks()
    tasks = await kopf.spawn_tasks(
        registry=registry,
        settings=settings,
        standalone=True,
        clusterwide=not namespaces,
        namespaces=namespaces,
        stop_flag=stop,
    )
    # These handlers replace those of kopf, which do not record whether a signal arrived.
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    ending = asyncio.create_task(_end_after_the_first(tasks))
    try:
        await kopf.run_tasks(tasks, ignored=before)
    finally:
        await ending
        # kopf does not call the cleanup handler if it was stopped during the start.
        await operator.stop()
    if not stop.is_set():
        raise KopfEnded("kopf ended without a signal")


async def _end_after_the_first(tasks: Collection[asyncio.Task[None]]) -> None:
    """Wait until one of kopf's root tasks ends. Then start a timer that ends this process by force after
    ``END_SECONDS``.

    Without the timer, the process might never end: kopf's other tasks may wait for requests that nobody
    answers.
    """
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    timer = threading.Timer(END_SECONDS, _end)
    timer.daemon = True
    timer.start()


def _end() -> None:
    _log.critical("this process did not end within %.0f s, so it ends at once", END_SECONDS)
    os._exit(1)
