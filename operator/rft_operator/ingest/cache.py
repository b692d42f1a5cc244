"""The caches of the ingest: the API server's reviews of tokens, and the RFTJob of each pod that sends
reports.

Tokens are stored only as hashes.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from rft_operator.ingest.identity import Caller, Claims, Refused

POSITIVE_SECONDS = 60.0
RENEWED_BEFORE_SECONDS = (15.0, 40.0)
"""A cached review is renewed between 15 and 40 seconds before it expires. The hash of the token determines
the exact time. After a restart of the operator, many tokens are reviewed at once. Since the exact times
differ, the renewals of these reviews do not coincide.

A renewal starts when a report arrives. A run with short steps sends a report at least every 15 seconds. So
its review is renewed before it expires."""
NEGATIVE_SECONDS = 10.0
CHAIN_SECONDS = 300.0
MAX_ENTRIES = 16384

Answer = Caller | Refused


@dataclass
class _Known:
    answer: Answer
    until: float
    renews: float
    renewed: bool = False


class AnswerCache:
    """A cache of the reviews of tokens: for each token its pod, or the reason why it was refused."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._answers: OrderedDict[str, _Known] = OrderedDict()

    def get(self, token: str) -> Answer | None:
        """Return the cached result of a token's review, or ``None`` if there is none or it has expired."""
        known = self._answers.get(_key(token))
        return known.answer if known is not None and known.until > self._clock() else None

    def renews(self, token: str) -> bool:
        """Return whether the cached review of an accepted token must be renewed now. For each review, only
        one call returns True.
        """
        known = self._answers.get(_key(token))
        if known is None or known.renewed or not isinstance(known.answer, Caller):
            return False
        known.renewed = known.renews <= self._clock()
        return known.renewed

    def bearer(self, token: str) -> str | None:
        """Return the UID of the token's pod from the last review, even if this review has expired. Return
        ``None`` if there was no review or if it refused the token.
        """
        known = self._answers.get(_key(token))
        return known.answer.pod_uid if known is not None and isinstance(known.answer, Caller) else None

    def put(self, token: str, answer: Answer) -> None:
        """Cache the result of a token's review. If the cache is full, drop the oldest result."""
        life = NEGATIVE_SECONDS if isinstance(answer, Refused) else POSITIVE_SECONDS
        key = _key(token)
        until = self._clock() + life
        self._answers[key] = _Known(answer, until, until - _ahead(key))
        self._answers.move_to_end(key)
        while len(self._answers) > MAX_ENTRIES:
            self._answers.popitem(last=False)

    def forget_pod(self, pod_uid: str) -> None:
        """Drop the cached reviews of the tokens of a pod that does not exist any more."""
        gone = [
            key
            for key, known in self._answers.items()
            if isinstance(known.answer, Caller) and known.answer.pod_uid == pod_uid
        ]
        for key in gone:
            del self._answers[key]


class Chains:
    """A cache that maps pods to their RFTJobs. A pod's owner references lead to its Job, and from there to
    its RFTJob. Owner references never change.

    An entry is removed when its pod ends. It also expires, because a watch may miss the end of the pod. The
    cache does not replace the review of a pod's token. Thread-safe.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._callers: OrderedDict[str, tuple[float, Caller]] = OrderedDict()

    def get(self, claimed: Claims) -> Caller | None:
        """Return the pod that a token names (``claimed``) with its RFTJob, or ``None`` if this pod is not
        cached.
        """
        with self._lock:
            until, caller = self._callers.get(claimed.pod_uid, (0.0, None))
        holds = caller is not None and until > self._clock() and caller.namespace == claimed.namespace
        return caller if holds else None

    def put(self, *callers: Caller) -> None:
        """Cache ``callers``, the senders of reports. Their pods' owner references must have been checked just
        before.
        """
        until = self._clock() + CHAIN_SECONDS
        with self._lock:
            for caller in callers:
                self._callers[caller.pod_uid] = (until, caller)
                self._callers.move_to_end(caller.pod_uid)
            while len(self._callers) > MAX_ENTRIES:
                self._callers.popitem(last=False)

    def forget_pod(self, pod_uid: str) -> None:
        """Drop the entry of a pod that does not exist any more."""
        with self._lock:
            self._callers.pop(pod_uid, None)


def _ahead(key: str) -> float:
    """Return how many seconds before its expiry a cached token review is renewed. ``key`` is the token's
    hash.
    """
    least, most = RENEWED_BEFORE_SECONDS
    return least + (most - least) * int(key[:8], 16) / 2**32


def _key(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
