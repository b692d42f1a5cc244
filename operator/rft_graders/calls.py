"""Types for graders that call a server: requests become HTTP calls, and responses become scores."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rft_graders.client import GradeRequest, Outcome


@dataclass(frozen=True)
class Call:
    """One HTTP POST for one or more requests.

    - ``indices``: the positions of these requests in the list of all requests.
    - ``body``: the body of the POST, or an error if these requests cannot be sent.
    """

    indices: tuple[int, ...]
    body: bytes | ValueError


class Remote(Protocol):
    """The interface of a grader that calls a server."""

    url: str

    def calls(self, requests: Sequence[GradeRequest]) -> Iterator[Call]:
        """Yield the HTTP calls for the requests. Each request is in exactly one call."""

    def outcomes(self, answer: Any, count: int) -> list[Outcome]:
        """Return the score or the error of each of the ``count`` requests, read from the server's response.

        Raises ValueError if the whole response cannot be used.
        """


def score(value: object) -> Outcome:
    """Return a JSON value as a raw score, or a ValueError if it is not a number or is too large for a float.

    The values true and false are the scores 1.0 and 0.0. NaN is returned unchanged.
    """
    if not isinstance(value, bool | int | float):
        return ValueError(f"the score is {'missing' if value is None else 'not a number'}")
    try:
        return float(value)
    except OverflowError:
        return ValueError("the score is not finite")
