"""Advice on a spec. Read top to bottom, the list at the end is the specification."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from rft_api.job import RFTJobSpec


class Advice(NamedTuple):
    """One thing that the tuning guide would say about a spec."""

    rule: str
    """Id of the rule, e.g. ``top-k-above-50``."""
    path: str
    """Field in the manifest, e.g. ``spec.sampling.topK``."""
    message: str
    """The value, what it leads to, and what to do instead."""

    def __str__(self) -> str:
        return f"{self.path}: {self.message} [{self.rule}]"


class AdviceRule(NamedTuple):
    """A named pure function from a spec to what it has to say."""

    id: str
    advice: str
    """The guide's advice in our words."""
    speaks: Callable[[RFTJobSpec], Iterator[Advice]]


RULES: tuple[AdviceRule, ...] = ()


def advise(spec: RFTJobSpec) -> list[Advice]:
    """Return what every rule has to say, in the order of the rules."""
    return [advice for rule in RULES for advice in rule.speaks(spec)]
