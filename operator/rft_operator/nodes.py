"""A cache of the cluster's nodes. They are used to make plans, to explain why a pod is unschedulable, and to
find out whether the node of a running pod still answers.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from rft_operator.cluster import ClusterError
from rft_operator.observe import node
from rft_planner.inventory import Inventory
from rft_planner.kind_labels import TABLE, Table

PLANNING_SECONDS = 60.0
"""Maximum age in seconds of the cached nodes that are used for a plan, if one of them has a GPU."""
PLACING_SECONDS = 10.0
"""Maximum age in seconds of the cached nodes for everything else: to explain why a pod is unschedulable, to
find out whether a node still answers, and to make a plan if no cached node has a GPU."""
_log = logging.getLogger(__name__)


class Nodes:
    """A cache of the cluster's nodes. Thread-safe. Only one thread at a time reads nodes from the API
    server.
    """

    def __init__(
        self,
        read: Callable[[], Iterable[Any]] | None,
        clock: Callable[[], float] = time.monotonic,
        table: Table = TABLE,
    ) -> None:
        """Make an empty cache.

        - ``read``: a function that lists the nodes of the cluster. ``None``: the cache stays empty.
        - ``table``: the node labels that identify each kind of GPU.
        """
        self._read = read
        self._table = table
        self._clock = clock
        self._lock = threading.Lock()
        self._nodes = Inventory()
        self._read_at = float("-inf")
        self._said = ""

    def get(self, max_age: float) -> Inventory:
        """Return the nodes of the cluster. They are read again if they are older than ``max_age`` seconds.

        If that read fails, the nodes of the last successful read are returned.
        """
        if self._read is None:
            return Inventory()
        with self._lock:
            if self._clock() - self._read_at > max_age:
                self._refresh(self._read)
            return self._nodes

    def for_a_plan(self) -> Inventory:
        """Return the nodes for a plan.

        They are at most ``PLANNING_SECONDS`` old. If none of them has a GPU, they are at most
        ``PLACING_SECONDS`` old, because a node with a GPU may have joined the cluster a moment ago.
        """
        found = self.get(PLANNING_SECONDS)
        return found if found.has_gpus else self.get(PLACING_SECONDS)

    def _refresh(self, read: Callable[[], Iterable[Any]]) -> None:
        # Set before the read, so that a failed read is not repeated sooner than a successful one.
        self._read_at = self._clock()
        try:
            self._nodes = Inventory(map(node, read()), self._table)
        except ClusterError as error:
            self._say(f"the nodes cannot be read, so plans use the last ones that were read, if any: {error}")
        else:
            self._say("" if self._nodes else "the cluster has no nodes, so plans are made without them")

    def _say(self, what: str) -> None:
        """Log ``what`` as a warning, unless the previous call logged the same text."""
        if what and what != self._said:
            _log.warning(what)
        self._said = what
