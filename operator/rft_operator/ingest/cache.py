"""Caches of the reviews of tokens and of the RFTJobs of pods. Tokens are stored only as hashes."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from rft_operator.ingest.identity import Caller, Claims, Refused

POSITIVE_SECONDS = 60.0
RENEWED_BEFORE_SECONDS = (15.0, 40.0)
"""A cached review is renewed between 15 and 40 seconds before it expires. The token's hash gives the exact
time.

A renewal happens while a report is answered. In the last 15 seconds at least one more report comes from a
run with short steps. The range spreads the renewals: after a restart of the operator many tokens are
reviewed at the same time, and they are not all renewed at the same time."""
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
    """A cache of the reviews of tokens: to which pod each token belongs, or why it was refused."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._answers: OrderedDict[str, _Known] = OrderedDict()

    def get(self, token: str) -> Answer | None:
        """Return the cached answer for a token, or ``None`` if there is none or it has expired."""
        known = self._answers.get(_key(token))
        return known.answer if known is not None and known.until > self._clock() else None

    def renews(self, token: str) -> bool:
        """Return whether the cached review of an accepted token is to be renewed now. True once for each
        review.
        """
        known = self._answers.get(_key(token))
        if known is None or known.renewed or not isinstance(known.answer, Caller):
            return False
        known.renewed = known.renews <= self._clock()
        return known.renewed

    def bearer(self, token: str) -> str | None:
        """Return the UID of the token's pod from the last review, even if this review has expired."""
        known = self._answers.get(_key(token))
        return known.answer.pod_uid if known is not None and isinstance(known.answer, Caller) else None

    def put(self, token: str, answer: Answer) -> None:
        """Cache the answer for a token. If there are too many answers, drop the oldest."""
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
    """A cache of the RFTJobs of pods. A pod's chain of owner references, which never changes, leads to its
    RFTJob.

    An entry is removed when its pod ends. It also expires, because a watch may miss the end of the pod.
    The token of the pod is still reviewed. Thread-safe.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._callers: OrderedDict[str, tuple[float, Caller]] = OrderedDict()

    def get(self, claimed: Claims) -> Caller | None:
        """Return the caller to whom a reviewed token belongs, or ``None`` if the pod is not cached."""
        with self._lock:
            until, caller = self._callers.get(claimed.pod_uid, (0.0, None))
        holds = caller is not None and until > self._clock() and caller.namespace == claimed.namespace
        return caller if holds else None

    def put(self, *callers: Caller) -> None:
        """Cache callers whose chain of owner references was just followed."""
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
    """Return how many seconds before it expires the cached review with this key is renewed."""
    least, most = RENEWED_BEFORE_SECONDS
    return least + (most - least) * int(key[:8], 16) / 2**32


def _key(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
