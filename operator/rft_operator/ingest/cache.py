"""Answers about tokens, remembered for a short time. Tokens themselves are never kept."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable

from rft_operator.ingest.identity import Caller, Refused

POSITIVE_SECONDS = 60.0
NEGATIVE_SECONDS = 10.0
MAX_ENTRIES = 4096

Answer = Caller | Refused


class AnswerCache:
    """Remembers who a token belongs to, or why it was refused."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._answers: OrderedDict[str, tuple[float, Answer]] = OrderedDict()

    def get(self, token: str) -> Answer | None:
        """Return the answer that still holds."""
        key = _key(token)
        until, answer = self._answers.get(key, (0.0, None))
        if answer is None or until <= self._clock():
            self._answers.pop(key, None)
            return None
        return answer

    def put(self, token: str, answer: Answer) -> None:
        """Remember an answer; the oldest goes when there are too many."""
        life = NEGATIVE_SECONDS if isinstance(answer, Refused) else POSITIVE_SECONDS
        self._answers[_key(token)] = (self._clock() + life, answer)
        while len(self._answers) > MAX_ENTRIES:
            self._answers.popitem(last=False)

    def forget_pod(self, pod_uid: str) -> None:
        """Drop what is known of the tokens of a pod that is gone."""
        gone = [
            key
            for key, (_, answer) in self._answers.items()
            if isinstance(answer, Caller) and answer.pod_uid == pod_uid
        ]
        for key in gone:
            del self._answers[key]


def _key(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
