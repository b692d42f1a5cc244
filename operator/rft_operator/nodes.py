"""The cluster's nodes, read now and then: plans and refusals rest on them, and no job waits for them."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from rft_operator.cluster import ClusterError
from rft_operator.observe import node
from rft_planner.nodes import Node

PLANNING_SECONDS = 60.0
"""Age up to which nodes are good for a plan."""
PLACING_SECONDS = 10.0
"""Age up to which they are good for saying why a pod is not placed."""
_log = logging.getLogger(__name__)


class Nodes:
    """The last nodes that were read. Any thread may ask; one at a time reads."""

    def __init__(
        self, read: Callable[[], list[Any]] | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Read with ``read``; without it there are none."""
        self._read = read
        self._clock = clock
        self._lock = threading.Lock()
        self._nodes: tuple[Node, ...] = ()
        self._read_at = float("-inf")
        self._said = ""

    def get(self, max_age: float) -> tuple[Node, ...]:
        """Return the nodes as they were at most ``max_age`` seconds ago, or the last that could be read."""
        if self._read is None:
            return ()
        with self._lock:
            if self._clock() - self._read_at > max_age:
                self._refresh(self._read)
            return self._nodes

    def _refresh(self, read: Callable[[], list[Any]]) -> None:
        # A refusal is asked about again no sooner than an answer.
        self._read_at = self._clock()
        try:
            self._nodes = tuple(map(node, read()))
        except ClusterError as error:
            self._say(f"the nodes cannot be read, so plans are made without them: {error}")
        else:
            self._say("" if self._nodes else "the cluster has no nodes, so plans are made without them")

    def _say(self, what: str) -> None:
        """Log what is new."""
        if what and what != self._said:
            _log.warning(what)
        self._said = what
