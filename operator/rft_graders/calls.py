"""Types shared by the graders http and model, which call a server: an HTTP call for several completions, and
the conversion of the server's values to scores.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rft_graders.client import GradeRequest, Outcome


@dataclass(frozen=True)
class Call:
    """One HTTP POST that asks a server for the scores of one or more completions.

    - ``indices``: the positions of the requests for these scores in the list that ``Remote.calls`` got.
    - ``body``: the body of the POST, or an error that says why these requests cannot be sent.
    """

    indices: tuple[int, ...]
    body: bytes | ValueError


class Remote(Protocol):
    """The interface of a grader that calls a server: makes the bodies of HTTP calls, and reads the responses.

    ``url`` is the address to which the calls are posted.
    """

    url: str

    def calls(self, requests: Sequence[GradeRequest]) -> Iterator[Call]:
        """Yield the HTTP calls that ask for the requested scores. Each request is in exactly one call."""

    def outcomes(self, answer: Any, count: int) -> list[Outcome]:
        """Return the score or the error of each of the ``count`` requests in one call, in their order.

        ``answer``: the parsed JSON of the server's response. Raises ValueError if the whole response cannot
        be used.
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
