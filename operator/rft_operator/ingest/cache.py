"""Answers about tokens, remembered for a short time. Tokens themselves are never kept."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from rft_operator.ingest.identity import Caller, Claims, Refused

POSITIVE_SECONDS = 60.0
RENEWED_BEFORE_SECONDS = (15.0, 40.0)
"""Before the end of its time an answer is asked for again, for each token at a moment of its own in between.

The least leaves time for a report of a run with short steps. After a restart of the operator all tokens are
reviewed at once, and should not be again.
"""
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
    """Remembers who a token belongs to, or why it was refused."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._answers: OrderedDict[str, _Known] = OrderedDict()

    def get(self, token: str) -> Answer | None:
        """Return the answer that still holds."""
        known = self._answers.get(_key(token))
        return known.answer if known is not None and known.until > self._clock() else None

    def renews(self, token: str) -> bool:
        """Return whether it is time to ask again about a pod that is known; once for each answer."""
        known = self._answers.get(_key(token))
        if known is None or known.renewed or not isinstance(known.answer, Caller):
            return False
        known.renewed = known.renews <= self._clock()
        return known.renewed

    def bearer(self, token: str) -> str | None:
        """Return the UID of the pod that a token belonged to when it was reviewed last, however long ago."""
        known = self._answers.get(_key(token))
        return known.answer.pod_uid if known is not None and isinstance(known.answer, Caller) else None

    def put(self, token: str, answer: Answer) -> None:
        """Remember an answer; the oldest goes when there are too many."""
        life = NEGATIVE_SECONDS if isinstance(answer, Refused) else POSITIVE_SECONDS
        key = _key(token)
        until = self._clock() + life
        self._answers[key] = _Known(answer, until, until - _ahead(key))
        self._answers.move_to_end(key)
        while len(self._answers) > MAX_ENTRIES:
            self._answers.popitem(last=False)

    def forget_pod(self, pod_uid: str) -> None:
        """Drop what is known of the tokens of a pod that is gone."""
        gone = [
            key
            for key, known in self._answers.items()
            if isinstance(known.answer, Caller) and known.answer.pod_uid == pod_uid
        ]
        for key in gone:
            del self._answers[key]


class Chains:
    """Remembers for which RFTJob a pod trains. That never changes, so only a pod that goes ends it.

    The time limit is for a watch that missed the end of a pod. The token is reviewed all the same.
    Any thread may call.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._callers: OrderedDict[str, tuple[float, Caller]] = OrderedDict()

    def get(self, claimed: Claims) -> Caller | None:
        """Return the caller that a reviewed token stands for, where its chain was followed lately."""
        with self._lock:
            until, caller = self._callers.get(claimed.pod_uid, (0.0, None))
        holds = caller is not None and until > self._clock() and caller.namespace == claimed.namespace
        return caller if holds else None

    def put(self, *callers: Caller) -> None:
        """Remember chains that were just followed to their ends."""
        until = self._clock() + CHAIN_SECONDS
        with self._lock:
            for caller in callers:
                self._callers[caller.pod_uid] = (until, caller)
                self._callers.move_to_end(caller.pod_uid)
            while len(self._callers) > MAX_ENTRIES:
                self._callers.popitem(last=False)

    def forget_pod(self, pod_uid: str) -> None:
        """A pod is gone."""
        with self._lock:
            self._callers.pop(pod_uid, None)


def _ahead(key: str) -> float:
    """Return how long before its end the answer of this key is asked for again."""
    least, most = RENEWED_BEFORE_SECONDS
    return least + (most - least) * int(key[:8], 16) / 2**32


def _key(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
