"""The types of advice and of its rules."""

from collections.abc import Callable
from typing import NamedTuple

from rft_advice.headings import Heading
from rft_api.job import RFTJobSpec


class Advice(NamedTuple):
    """One piece of advice on a spec."""

    rule: str
    """Id of the rule, e.g. ``top-k-above-50``."""
    path: str
    """Field in the manifest, e.g. ``spec.sampling.topK``."""
    message: str
    """The message: the value, its effect, and what to do instead."""

    def __str__(self) -> str:
        return f"{self.path}: {self.message} [{self.rule}]"


class AdviceRule(NamedTuple):
    """A rule: a pure function from a spec to a message, with its description."""

    id: str
    paths: tuple[str, ...]
    """Fields that the rule reads. The first one is the field to change."""
    headings: tuple[Heading, ...]
    """Headings of the guide with this advice. Empty if the guide does not have it."""
    when: str
    """The condition of the rule, in words."""
    advice: str
    """The guide's advice in our words."""
    message: Callable[[RFTJobSpec], str | None]
    """The function: returns the message, or ``None`` if the rule does not apply."""

    def speak(self, spec: RFTJobSpec) -> Advice | None:
        """Return the advice if the rule applies to the spec, else None."""
        message = self.message(spec)
        return None if message is None else Advice(self.id, self.paths[0], message)
