"""A cache of two facts about the API server: which features its version has, and whether it assigns user IDs
to pods.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from rft_operator.cluster import ClusterError, Unavailable
from rft_operator.objects.platform import NATIVE_SIDECARS, REPLACES_PODS, AssignsUsers, is_at_least

OPENSHIFT = "security.openshift.io"
"""The API group of OpenShift's security context constraints."""
CACHED_SECONDS = 300.0
"""Seconds after which the cached features are read again, because the API server may have been upgraded."""
_log = logging.getLogger(__name__)


class ServerFeatures(NamedTuple):
    """The features of an API server that the pods of runs depend on. ``Platform`` explains the fields."""

    sidecars: bool = False
    replaces_pods: bool = False
    assigns_users: bool = False


class Servers:
    """A cache of the API server's features. Thread-safe."""

    def __init__(
        self,
        version: Callable[[], dict[str, Any]],
        has_group: Callable[[str], bool],
        assigns_users: AssignsUsers = "auto",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make an empty cache.

        - ``version``: a function that reads the version of the API server.
        - ``has_group``: a function that returns whether the API server has an API group.
        - ``assigns_users``: the setting of the operator with this name.
        """
        self._version = version
        self._has_group = has_group
        self._assigns_users = assigns_users
        self._clock = clock
        self._lock = threading.Lock()
        self._known = ServerFeatures()
        self._read_at = float("-inf")

    def get(self) -> ServerFeatures:
        """Return the features of the API server. If a request fails, return the features of the last
        successful request.

        Before the first success, raises Unavailable if the API server does not answer. A guess could be wrong
        for a whole run, because the pod template of a Job cannot be changed later. If the API server refuses
        the request before the first success, all features are false. Only ``assigns_users`` is true if the
        setting is "true".
        """
        with self._lock:
            if self._clock() - self._read_at > CACHED_SECONDS:
                try:
                    self._known = self._read()
                except ClusterError as error:
                    if self._read_at == float("-inf"):
                        if isinstance(error, Unavailable):
                            raise
                        self._known = ServerFeatures(assigns_users=self._assigns_users == "true")
                    _log.warning("the version of the API server cannot be read: %s", error)
                else:
                    self._read_at = self._clock()
            return self._known

    def _read(self) -> ServerFeatures:
        chosen = self._assigns_users
        assigns = self._has_group(OPENSHIFT) if chosen == "auto" else chosen == "true"
        version = self._version()
        return ServerFeatures(
            is_at_least(version, NATIVE_SIDECARS), is_at_least(version, REPLACES_PODS), assigns
        )
