"""Common types of remote graders: requests become HTTP calls, and responses become outcomes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rft_graders.client import GradeRequest, Outcome


@dataclass(frozen=True)
class Call:
    """One POST for the requests with these indices, or the reason why it cannot be sent."""

    indices: tuple[int, ...]
    body: bytes | ValueError


class Remote(Protocol):
    """The protocol of a remote grader."""

    url: str

    def calls(self, requests: Sequence[GradeRequest]) -> Iterator[Call]:
        """Yield calls that together contain every request once."""

    def outcomes(self, answer: Any, count: int) -> list[Outcome]:
        """Return the outcomes of a call's ``count`` requests. Raises ValueError for an unusable answer."""


def score(value: object) -> Outcome:
    """Return a JSON value as a raw score. NaN is refused later, where scales are applied."""
    if not isinstance(value, bool | int | float):
        return ValueError(f"the score is {'missing' if value is None else 'no number'}")
    try:
        return float(value)
    except OverflowError:
        return ValueError("the score is not finite")
