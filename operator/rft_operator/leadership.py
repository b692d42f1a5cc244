"""Leader election: acquires the Lease, renews it, and releases it when the operator stops.

If this process loses the Lease, the process ends. One thread renews the Lease. A second thread checks the
deadline: without a renewal before it, this process may not write any more. A busy event loop cannot delay
these threads, and a renewal that hangs cannot delay the second thread.
"""

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from rft_operator import metrics
from rft_operator.cluster import Cluster, ClusterError, Conflict, NotFound, Unavailable
from rft_operator.lease import Json, LeaseStep, Seen, Terms, clock, decide, look, record, written

_log = logging.getLogger(__name__)
LEADER_LABEL = "rft.dev/leader"
"""Label of the pod whose process holds the Lease. The Service of the ingest sends reports only to the pod
with this label."""
GUARD_SECONDS = 1.0
"""Longest time in seconds between two checks whether the Lease has passed its deadline.

The thread sleeps between two checks. The time in which the machine is suspended does not count for a sleep,
but it counts for the deadline. So a single sleep until the deadline could end too late."""
RELEASE_SECONDS = 2.0
"""Longest time in seconds for which a stopping operator waits for the answer to a renewal of the Lease."""


def end_process(why: str) -> None:
    """End this process at once, without cleanup. So it writes nothing more to the cluster."""
    _log.critical("%s: this process ends, so that two operators are not active at once", why)
    os._exit(1)


@dataclass
class Leadership:
    """The Lease ``namespace/name``, which the process ``me`` holds or waits for.

    - ``cluster``: a connection for the Lease alone, with short timeouts. It may write even without the Lease.
    - ``lost``: called with the reason when this process has lost the Lease.
    """

    cluster: Cluster
    namespace: str
    name: str
    me: str
    terms: Terms
    lost: Callable[[str], None] = end_process
    now: Callable[[], float] = clock
    pod: str | None = None
    """Name of the process's own pod in ``namespace``, or ``None`` outside a cluster."""
    waiting: Callable[[], None] = lambda: None
    """Called once: after the leader's label was removed from the pod, and before the first attempt to acquire
    the Lease. A pod whose container was restarted may have had this label until then."""
    _seen: Seen | None = None
    _lease: Json | None = None
    _outdated: bool = True
    _unlabelled: bool = False
    _renewed: float | None = None
    _stopping: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def remaining(self) -> float:
        """Return for how many more seconds this process may write to the cluster. If the result is zero or
        less, it may not write.
        """
        renewed = self._renewed
        return 0.0 if renewed is None else renewed + self.terms.deadline - self.now()

    def acquire(self) -> None:
        """Wait until this process holds the Lease. There is no time limit.

        Raises:
            ClusterError: if the API server refuses, because a right or the namespace is missing. Also if the
                pod cannot get the leader's label after the Lease was acquired.
        """
        said = ""
        while self._renewed is None:
            said = self._say(self._attempt(), said)
            if self._renewed is None:
                self._stopping.wait(self.terms.retry)
        self._label("true")
        metrics.LEASE_HELD.set(1)
        _log.info("this process holds the Lease %s/%s, as %s", self.namespace, self.name, self.me)

    def keep(self) -> None:
        """Start two threads. One renews the Lease. The other calls ``lost`` if no renewal has succeeded for
        ``terms.deadline`` seconds.
        """
        for name, target in (("lease", self._renew), ("lease-deadline", self._guard)):
            thread = threading.Thread(target=target, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def release(self) -> None:
        """Release the Lease, so that the next operator need not wait until it expires. Before this call, all
        writes must have stopped.

        Do nothing if the process does not hold the Lease. Also do nothing while a renewal has no answer yet,
        because this renewal could take the Lease again after the release.
        """
        self._stopping.set()
        for thread in self._threads:
            thread.join(RELEASE_SECONDS)
        if self.remaining() <= 0 or any(thread.is_alive() for thread in self._threads):
            return
        self._renewed = None
        metrics.LEASE_HELD.set(0)
        try:
            self._put("")
        except ClusterError as error:
            _log.warning(
                "the Lease could not be released, so the next operator waits until it expires: %s", error
            )

    def turn(self) -> LeaseStep:
        """Do the next step of the leader election, and return this step. If another process may have changed
        the Lease, read the Lease first.

        Raises ClusterError if the API server refuses or does not answer a request.
        """
        if self._renewed is None or self._outdated:
            self._look()
        step = decide(self._seen, self.me, self._renewed, self.now(), self.terms)
        if step in (LeaseStep.ACQUIRE, LeaseStep.RENEW):
            sent = self.now()
            self._put(self.me)
            self._renewed = sent
        return step

    def _attempt(self) -> str:
        """Try once to acquire the Lease. If this fails, return a message that says what the process waits
        for. If it succeeds, the returned text has no meaning.
        """
        try:
            self._stand_by()
            self.turn()
        except (Conflict, Unavailable) as error:
            return f"the Lease cannot be acquired yet: {error}"
        holder = self._seen.record.holder if self._seen is not None else ""
        return f"this process waits: {holder} holds the Lease {self.namespace}/{self.name}"

    def _stand_by(self) -> None:
        """Remove the leader's label from the pod, and call ``waiting``. Do nothing if this succeeded before.
        If the container was restarted, the pod may still have the label.
        """
        if not self._unlabelled:
            self._label(None)
            self._unlabelled = True
            self.waiting()

    def _label(self, value: str | None) -> None:
        if self.pod is not None:
            self.cluster.label_pod(self.namespace, self.pod, {LEADER_LABEL: value})

    def _say(self, what: str, said: str) -> str:
        if self._renewed is None and what != said:
            _log.info(what)
        return what

    def _renew(self) -> None:
        wait = self.terms.retry
        while not self._stopping.wait(wait):
            began = self.now()
            try:
                step = self.turn()
            except ClusterError as error:
                _log.warning(
                    "the Lease could not be renewed; it expires in %.1f s: %s", self.remaining(), error
                )
            else:
                if step is LeaseStep.LOST:
                    self.lost(self._why())
                    return
            wait = max(0.0, self.terms.retry - (self.now() - began))

    def _guard(self) -> None:
        while (left := self.remaining()) > 0:
            if self._stopping.wait(min(left, GUARD_SECONDS)):
                return
        self.lost(self._why())

    def _why(self) -> str:
        lease = f"the Lease {self.namespace}/{self.name}"
        if self.remaining() <= 0:
            return f"{lease} could not be renewed for {self.terms.deadline:.0f} s"
        if self._seen is None:
            return f"{lease} was deleted"
        return f"{lease} is held by {self._seen.record.holder or 'nobody'}"

    def _look(self) -> None:
        try:
            self._lease = self.cluster.lease(self.namespace, self.name)
        except NotFound:
            self._lease = None
        self._see()

    def _put(self, holder: str) -> None:
        """Write the Lease with ``holder`` as its holder. An empty ``holder`` releases the Lease.

        Raises Conflict if another process has written the Lease since this process last read it.
        """
        spec = written(self._lease, holder, self.terms, datetime.now(UTC))
        # Set before the request: even if no answer arrives, the Lease may have been written.
        self._outdated = True
        if self._lease is None:
            metadata = {"name": self.name, "namespace": self.namespace}
            manifest = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata}
            self._lease = self.cluster.create({**manifest, "spec": spec})
        else:
            self._lease = self.cluster.replace_lease({**self._lease, "spec": spec})
        self._see()

    def _see(self) -> None:
        there = record(self._lease, self.terms) if self._lease is not None else None
        self._seen = look(self._seen, there, self.now())
        self._outdated = False
