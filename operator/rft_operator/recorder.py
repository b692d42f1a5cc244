"""Posts the Events of RFTJobs, in threads of its own.

Reconciliations do not wait for the API server to store Events. So if many RFTJobs are created at once, their
child Jobs are created earlier.
"""

import hashlib
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime
from typing import Any

from rft_operator.clock import rfc3339
from rft_operator.cluster import ClusterError, Conflict
from rft_operator.decision import Note
from rft_operator.objects.names import OPERATOR_NAME, Owner

_log = logging.getLogger(__name__)
MAX_EVENT_MESSAGE = 1000
EVENT_THREADS = 2
"""Number of threads that post Events. All Events about one RFTJob are posted by the same thread."""
MAX_WAITING = 5000
"""Largest number of Events that wait for the threads. It limits the memory that they take. The thread that
records a further Event posts it itself, before the Events that wait."""


class EventRecorder:
    """A recorder that posts Events about RFTJobs. Thread-safe.

    If an Event cannot be posted, this is only logged. Users find most of the messages in the status too.
    """

    def __init__(self, create: Callable[[dict[str, Any]], object], *, background: bool) -> None:
        """Make a recorder.

        - ``create``: a function that creates an object on the API server, and raises ClusterError.
        - ``background``: whether threads of the recorder post the Events. If false, ``record`` posts each
          Event itself, and returns when the API server has answered.
        """
        self._create = create
        count = EVENT_THREADS if background else 0
        self._threads = [ThreadPoolExecutor(1, f"events-{number}") for number in range(count)]
        self._lock = threading.RLock()  # reentrant, because ``record`` may call ``_forget`` while it holds it
        self._waiting: set[Future[None]] = set()

    def record(self, owner: Owner, note: Note) -> None:
        """Post an Event about an RFTJob. The Event has the time of this call, even if it is posted later."""
        manifest = event(owner, note, datetime.now(UTC))
        with self._lock:
            if self._threads and len(self._waiting) < MAX_WAITING:
                thread = self._threads[hash(owner.uid) % len(self._threads)]
                posted = thread.submit(self._post, manifest)
                self._waiting.add(posted)
                posted.add_done_callback(self._forget)
                return
        self._post(manifest)

    @property
    def waiting(self) -> int:
        """The number of recorded Events that the API server has not answered yet."""
        with self._lock:
            return len(self._waiting)

    def close(self, seconds: float) -> None:
        """Post the waiting Events for at most ``seconds`` seconds, then drop the rest. Log the number of
        dropped Events.

        Return when the API server has answered the requests that were sent. After this call, ``record`` posts
        each Event itself and waits for the answer.
        """
        with self._lock:
            threads, self._threads = self._threads, []
            waiting = set(self._waiting)
        wait(waiting, seconds)
        for thread in threads:
            thread.shutdown(wait=False, cancel_futures=True)
        if lost := sum(one.cancelled() for one in waiting):
            _log.warning("%d Events are not posted, because the operator stops", lost)
        for thread in threads:
            thread.shutdown()

    def _forget(self, posted: "Future[None]") -> None:
        with self._lock:
            self._waiting.discard(posted)

    def _post(self, manifest: dict[str, Any]) -> None:
        about = manifest["involvedObject"]
        where = (manifest["reason"], about["namespace"], about["name"])
        try:
            self._create(manifest)
        except Conflict:
            _log.debug("the Event %s for %s/%s exists already", *where)
        except ClusterError as error:
            _log.warning("the Event %s for %s/%s cannot be created: %s", *where, error)
        except Exception:
            _log.exception("the Event %s for %s/%s cannot be created", *where)


def event(owner: Owner, note: Note, now: datetime) -> dict[str, Any]:
    """Return an Event about an RFTJob, with the time ``now``.

    The name of the Event ends with a hash of its content and of its time in seconds. So if the same Event is
    posted twice in one second, the API server refuses the second one.
    """
    moment = rfc3339(now)
    said = "\0".join((owner.uid, note.reason, note.message, moment))
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{owner.name}.{hashlib.sha256(said.encode()).hexdigest()[:16]}",
            "namespace": owner.namespace,
        },
        "involvedObject": {key: owner.reference[key] for key in ("apiVersion", "kind", "name", "uid")}
        | {"namespace": owner.namespace},
        "reason": note.reason,
        "message": note.message[:MAX_EVENT_MESSAGE],
        "type": "Warning" if note.warning else "Normal",
        "source": {"component": OPERATOR_NAME},
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
    }
