"""Runs the work queue, its workers, the ingest and the renewal of its certificates in one event loop."""

import asyncio
import logging
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rft_operator import events, metrics, tls, workloads
from rft_operator.cluster import Cluster, ClusterError
from rft_operator.controller import Controller
from rft_operator.health import Signs
from rft_operator.ingest.cache import Chains
from rft_operator.ingest.reports import Reports
from rft_operator.ingest.server import Ingest
from rft_operator.listener import BoundedListener
from rft_operator.queue import Key, Pace, WorkQueue, work
from rft_operator.recorder import EventRecorder
from rft_operator.settings import Settings
from rft_operator.tls_secret import current_identity

REVIEW_THREADS = 8
REPORT_DEBOUNCE_SECONDS = 2.0
"""Shortest time in seconds from the end of a job's last reconciliation to one that is caused by a report.
This limits the number of status writes."""
CHILD_DEBOUNCE_SECONDS = 0.5
"""Shortest time in seconds from the end of a job's last reconciliation to one that is caused by an event of a
child."""
REPORT_ROUNDS_PER_SECOND = 15.0
"""Largest number of reconciliations per second that are caused by reports, for all jobs together. If there
are more reports, some statuses are updated later."""
NEW_JOB_PRIORITY_SECONDS = 30.0
"""A new RFTJob is queued as if it had already waited for this many seconds. So it gets its first status
before RFTJobs that have waited for a shorter time are reconciled."""
HEARTBEAT_SECONDS = 2.0
CERTIFICATE_CHECK_SECONDS = 12 * 3600.0
START_RETRY_SECONDS = 2.0
"""Seconds between two attempts to read the certificates of the ingest, when the operator starts."""
STOP_SECONDS = 4.0
"""Longest time in seconds that the stopping operator waits for the current reconciliations, and for Events
that are not posted yet. They may take longer if the API server does not answer."""
STOP_EVENTS_SECONDS = 2.0
"""Longest time in seconds for which a stopping operator still posts Events, after its last reconciliation has
ended."""
STOP_CHECK_SECONDS = 0.05
_log = logging.getLogger(__name__)


class Operator:
    """The work queue with its workers, and the ingest. All methods must be called in the event loop."""

    def __init__(self, cluster: Cluster, settings: Settings, signs: Signs) -> None:
        self._cluster = cluster
        self._settings = settings
        self._signs = signs
        self._reports = Reports()
        chains = Chains(time.monotonic)
        self._recorder = EventRecorder(cluster.create, background=True)
        self._controller = Controller(cluster, self._reports, settings, chains, self._recorder)
        self._queue = WorkQueue(time.monotonic)
        self._pace = Pace(time.monotonic, 1 / REPORT_ROUNDS_PER_SECOND)
        self._threads = ThreadPoolExecutor(settings.workers, "reconcile")
        # A pool of its own, so that many token reviews cannot delay reconciliations.
        self._review_threads = ThreadPoolExecutor(REVIEW_THREADS, "review")
        self._ingest = Ingest(
            cluster,
            self._reports,
            self._review_threads,
            self._reported,
            namespaces=settings.namespaces,
            chains=chains,
        )
        self._known: set[Key] = set()
        self.is_idle = True
        """False from ``start`` until ``stop`` has ended all threads, because a thread may still send a
        request. True before and after that time."""
        self._ending: threading.Thread | None = None
        """The thread that ends all other threads. ``stop`` starts it."""
        self._tasks: list[asyncio.Task[None]] = []
        self._listener = BoundedListener(self._ingest.application())
        metrics.INGEST_CONNECTIONS.set_function(lambda: self._listener.connections)

    # Event handlers.

    def job_changed(self, key: Key, document: Mapping[str, Any], *, gone: bool) -> None:
        """Queue an RFTJob that was created or changed. If ``gone`` is true, it was deleted.

        Do nothing if the change is the operator's own last patch of the status.
        """
        if gone:
            self._known.discard(key)
            self._queue.forget(key)
            self._pace.forget(key)
            self._controller.on_delete(key)
        else:
            self._known.add(key)
            if self._controller.is_own_write(key, document["metadata"].get("resourceVersion", "")):
                return
            self._controller.on_update(key, document)
        is_new = not gone and not (document.get("status") or {}).get("phase")
        self._enqueue(key, delay=-NEW_JOB_PRIORITY_SECONDS if is_new else 0.0)

    def child_changed(self, key: Key, pods_version: str = "", *, job_or_pod: bool, version: str = "") -> None:
        """Queue an RFTJob, because one of its children changed.

        One change by the operator leads to several events of children. So events are debounced: those that
        come close together cause only one reconciliation.

        - ``pods_version``: the resource version of the changed pod, or "" if the child is not a pod.
        - ``job_or_pod``: true if the child is the Job or a pod, false if it is a ConfigMap.
        - ``version``: the resource version of the changed Job or ConfigMap, or "" if it is not known.
        """
        self._controller.on_child_event(key, pods_version, job_or_pod=job_or_pod, version=version)
        self._queue.add(key, 0.0, CHILD_DEBOUNCE_SECONDS)

    def pod_ended(self, uid: str) -> None:
        """Drop the ingest's cached data of a pod that has ended or was deleted."""
        self._ingest.forget_pod(uid)

    def _enqueue(self, key: Key, delay: float = 0.0) -> None:
        self._controller.on_child_event(key)
        self._queue.add(key, delay)

    def _reported(self, key: Key) -> None:
        self._queue.add(key, self._pace.wait(key), REPORT_DEBOUNCE_SECONDS)

    # Running.

    async def start(self) -> None:
        """Start the workers and the ingest. Wait until the certificates of the ingest can be read.

        After this, the process counts as ready. Raises CannotListen if the ingest cannot listen on its port.
        """
        self.is_idle = False
        self._tasks.append(asyncio.create_task(self._heartbeat()))
        polls = (
            ("Kueue's Workloads", self._controller.poll_workloads, workloads.POLL_SECONDS),
            ("Events", self._controller.poll_events, events.POLL_SECONDS),
        )
        self._tasks += [asyncio.create_task(self._poll(*each)) for each in polls]
        if self._settings.ingest_url is not None:
            await self._start_ingest()
        self._tasks += [
            asyncio.create_task(work(self._queue, self._process, _failed))
            for _ in range(self._settings.workers)
        ]
        self._signs.ready = True

    async def stop(self) -> None:
        """Stop the workers and the ingest, and wait until the current reconciliations have ended.

        If this takes longer than ``STOP_SECONDS``, ``is_idle`` stays false. A further call only updates
        ``is_idle``.
        """
        if self._ending is not None:
            self.is_idle = not self._ending.is_alive()
            return
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._listener.close()
        # In a thread, since it blocks until the API server has answered all requests.
        self._ending = threading.Thread(target=self._end_threads, name="stop", daemon=True)
        self._ending.start()
        loop = asyncio.get_running_loop()
        late = loop.time() + STOP_SECONDS
        while self._ending.is_alive() and loop.time() < late:
            await asyncio.sleep(STOP_CHECK_SECONDS)
        self.is_idle = not self._ending.is_alive()
        if waiting := self._recorder.waiting:
            _log.warning("the operator stops, but %d Events are not posted yet", waiting)

    def _end_threads(self) -> None:
        for pool in (self._threads, self._review_threads):
            pool.shutdown(cancel_futures=True)
        self._recorder.close(STOP_EVENTS_SECONDS)

    async def _process(self, key: Key) -> float | None:
        metrics.QUEUE_LENGTH.set(len(self._queue))
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._controller.process, key)

    async def _heartbeat(self) -> None:
        while True:
            self._signs.loop_turned()
            await asyncio.sleep(HEARTBEAT_SECONDS)

    async def _poll(self, what: str, poll: Callable[[], list[Key]], seconds: float) -> None:
        """Call ``poll`` in a thread again and again, and queue the RFTJobs that it returns. ``what`` names
        the polled objects in the log.

        The pause before each call is ``seconds`` seconds, but at least four times as long as the previous
        call took. So polling never takes more than a fifth of the time.
        """
        loop = asyncio.get_running_loop()
        took = 0.0
        while True:
            await asyncio.sleep(max(seconds, 4 * took))
            started = time.monotonic()
            try:
                changed = await loop.run_in_executor(self._threads, poll)
            except Exception:
                # Polling must go on after any error. For example, a version of Kueue that this release does
                # not know may write objects that cannot be parsed.
                _log.exception("%s cannot be read; the operator tries again", what)
                continue
            took = time.monotonic() - started
            for key in changed:
                self._queue.add(key)

    async def _start_ingest(self) -> None:
        identity = await self._first_certificates()
        context = tls.server_context(identity)
        settings = self._settings
        await self._listener.start(settings.ingest_bind, settings.ingest_port, context, "RFT_INGEST_PORT")
        self._tasks.append(asyncio.create_task(self._keep_certificates(context, identity)))

    async def _first_certificates(self) -> tls.Identity:
        while True:
            try:
                return await self._certificates()
            except ClusterError as error:
                _log.warning("the ingest cannot start without its certificates; trying again: %s", error)
            await asyncio.sleep(START_RETRY_SECONDS)

    async def _certificates(self) -> tls.Identity:
        wanted = self._settings
        identity = await asyncio.get_running_loop().run_in_executor(
            self._threads,
            current_identity,
            self._cluster,
            wanted.own_namespace,
            wanted.tls_secret,
            wanted.certificate_names,
        )
        self._controller.ca_bundle = identity.ca_bundle
        return identity

    async def _keep_certificates(self, context: ssl.SSLContext, identity: tls.Identity) -> None:
        while True:
            await asyncio.sleep(CERTIFICATE_CHECK_SECONDS)
            try:
                newer = await self._certificates()
            except ClusterError as error:
                _log.warning("the certificates could not be checked: %s", error)
                continue
            if newer == identity:
                continue
            if newer.ca_bundle != identity.ca_bundle:
                # The ConfigMap of each run must get the new CA. Until then, its trainer does not trust the
                # new certificate.
                for key in self._known:
                    self._enqueue(key)
            tls.load_into(context, newer)
            identity = newer


def _failed(key: Key, error: Exception) -> None:
    metrics.RECONCILES.labels("error").inc()
    if isinstance(error, ClusterError):
        _log.warning("%s/%s: %s; the operator tries again", *key, error)
    else:
        _log.error("%s/%s: the reconciliation failed; the operator tries again", *key, exc_info=error)
