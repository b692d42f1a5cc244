"""Defines two types: a piece of advice on a spec, and a rule that gives such advice."""

from collections.abc import Callable
from typing import NamedTuple

from rft_advice.headings import Heading
from rft_api.job import RFTJobSpec


class Advice(NamedTuple):
    """One piece of advice on a spec, for the user."""

    rule: str
    """Id of the rule that gives the advice, e.g. ``top-k-above-50``."""
    path: str
    """Path of the field in the manifest, e.g. ``spec.sampling.topK``."""
    message: str
    """The text for the user: the value, its effect, and what to do instead."""

    def __str__(self) -> str:
        return f"{self.path}: {self.message} [{self.rule}]"


class AdviceRule(NamedTuple):
    """A rule of advice: its id, its texts, and a pure function from a spec to a message."""

    id: str
    paths: tuple[str, ...]
    """Paths of the fields that the rule reads. The first one is the field to change."""
    headings: tuple[Heading, ...]
    """Headings of the tuning guide under which the guide gives this advice. Empty if the advice is not from
    the guide.
    """
    when: str
    """The condition under which the rule applies, in words."""
    advice: str
    """The advice of the tuning guide in our words."""
    message: Callable[[RFTJobSpec], str | None]
    """The function that returns the message, or ``None`` if the rule does not apply to the spec."""

    def speak(self, spec: RFTJobSpec) -> Advice | None:
        """Return the advice if the rule applies to the spec, else None."""
        message = self.message(spec)
        return None if message is None else Advice(self.id, self.paths[0], message)
