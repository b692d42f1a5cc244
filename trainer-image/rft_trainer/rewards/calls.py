"""What graders behind an address have in common: requests become calls, answers become outcomes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rft_trainer.rewards.client import Outcome, Request


@dataclass(frozen=True)
class Call:
    """One POST for some of the requests, by their indices; or why there is none."""

    indices: tuple[int, ...]
    body: bytes | ValueError


class Remote(Protocol):
    """A grader behind an address."""

    url: str

    def calls(self, requests: Sequence[Request]) -> Iterator[Call]:
        """Yield calls that cover every request once."""

    def outcomes(self, answer: Any, count: int) -> list[Outcome]:
        """Return one outcome for each of a call's ``count`` requests. Raises ValueError for all of them."""


def score(value: object) -> Outcome:
    """Return a JSON value as a raw score. NaN passes: it is refused where scales are applied."""
    if not isinstance(value, bool | int | float):
        return ValueError(f"the score is {'missing' if value is None else 'no number'}")
    try:
        return float(value)
    except OverflowError:
        return ValueError("the score is not finite")
