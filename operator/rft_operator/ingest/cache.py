"""Two caches of the ingest, the operator's server for trainers' reports: the result of each token's review by
the API server, and the RFTJob of each pod.

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
"""A cached token review is renewed between 15 and 40 seconds before it expires. The hash of the token
determines the exact time. So reviews that began together, as after a restart of the operator, are not renewed
all at once.

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
    """A cache of token reviews by the API server. For each token, it has the sender (a pod with its RFTJob),
    or the exception with which the token was refused.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._answers: OrderedDict[str, _Known] = OrderedDict()

    def get(self, token: str) -> Answer | None:
        """Return the cached result of the last review of a token by the API server. Return ``None`` if there
        is none or it has expired.
        """
        known = self._answers.get(_key(token))
        return known.answer if known is not None and known.until > self._clock() else None

    def renews(self, token: str) -> bool:
        """Return whether to review an accepted token again now, before its cached review expires. For each
        cached review, only one call returns True. Return False if the token is not cached or was refused.
        """
        known = self._answers.get(_key(token))
        if known is None or known.renewed or not isinstance(known.answer, Caller):
            return False
        known.renewed = known.renews <= self._clock()
        return known.renewed

    def bearer(self, token: str) -> str | None:
        """Return the UID of the token's pod from the last cached review, even if this review has expired.
        Return ``None`` if no review is cached or the token was refused.
        """
        known = self._answers.get(_key(token))
        return known.answer.pod_uid if known is not None and isinstance(known.answer, Caller) else None

    def put(self, token: str, answer: Answer) -> None:
        """Cache ``answer``, the result of a token's review: for 60 seconds if the token was accepted, for 10
        if it was refused. If the cache is full, drop the oldest result.
        """
        life = NEGATIVE_SECONDS if isinstance(answer, Refused) else POSITIVE_SECONDS
        key = _key(token)
        until = self._clock() + life
        self._answers[key] = _Known(answer, until, until - _ahead(key))
        self._answers.move_to_end(key)
        while len(self._answers) > MAX_ENTRIES:
            self._answers.popitem(last=False)

    def forget_pod(self, pod_uid: str) -> None:
        """Drop the cached reviews of all tokens of a pod. Called when the pod does not exist any more."""
        gone = [
            key
            for key, known in self._answers.items()
            if isinstance(known.answer, Caller) and known.answer.pod_uid == pod_uid
        ]
        for key in gone:
            del self._answers[key]


class Chains:
    """A cache that maps each pod to its RFTJob. So the ingest need not follow the owner references for each
    token: from the pod to its Job, and from the Job to the RFTJob.

    An entry is removed when its pod ends. It also expires after five minutes, because a watch may miss the
    end of the pod. The pod's token must still be reviewed. Thread-safe.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._callers: OrderedDict[str, tuple[float, Caller]] = OrderedDict()

    def get(self, claimed: Claims) -> Caller | None:
        """Return the pod in ``claimed``, to which a token is bound, with its RFTJob. Return ``None`` if this
        pod is not cached or its entry has expired.
        """
        with self._lock:
            until, caller = self._callers.get(claimed.pod_uid, (0.0, None))
        holds = caller is not None and until > self._clock() and caller.namespace == claimed.namespace
        return caller if holds else None

    def put(self, *callers: Caller) -> None:
        """Cache the pods ``callers`` with their RFTJobs. The owner references of these pods must have been
        checked just before.
        """
        until = self._clock() + CHAIN_SECONDS
        with self._lock:
            for caller in callers:
                self._callers[caller.pod_uid] = (until, caller)
                self._callers.move_to_end(caller.pod_uid)
            while len(self._callers) > MAX_ENTRIES:
                self._callers.popitem(last=False)

    def forget_pod(self, pod_uid: str) -> None:
        """Drop the cached RFTJob of a pod. Called when the pod does not exist any more."""
        with self._lock:
            self._callers.pop(pod_uid, None)


def _ahead(key: str) -> float:
    """Return how many seconds before its expiry the cached review of a token is renewed. ``key`` is the
    hash of the token, as hexadecimal digits.
    """
    least, most = RENEWED_BEFORE_SECONDS
    return least + (most - least) * int(key[:8], 16) / 2**32


def _key(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
