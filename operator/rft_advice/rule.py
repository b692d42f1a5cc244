"""Defines two types: a piece of advice on the spec of an RFTJob, and a rule that gives such advice."""

from collections.abc import Callable
from typing import NamedTuple

from rft_advice.headings import Heading
from rft_api.job import RFTJobSpec


class Advice(NamedTuple):
    """One piece of advice to the user on a field of an RFTJob's spec. Advice is a warning, not an error."""

    rule: str
    """Id of the rule that gives the advice, e.g. ``top-k-above-50``."""
    path: str
    """Path of the field in the manifest, e.g. ``spec.sampling.topK``."""
    message: str
    """The text for the user: the value, its effect, and what to do instead."""

    def __str__(self) -> str:
        return f"{self.path}: {self.message} [{self.rule}]"


class AdviceRule(NamedTuple):
    """A rule that gives advice on the spec of an RFTJob if its condition is true. The function ``message``
    checks the condition. It is a pure function.
    """

    id: str
    paths: tuple[str, ...]
    """Paths of the fields that the rule reads. The first one is the field to change."""
    headings: tuple[Heading, ...]
    """Headings of the tuning guide under which the guide gives this advice. Empty if the advice is not from
    the guide.
    """
    when: str
    """The condition under which the rule gives advice, in words for the documentation."""
    advice: str
    """The advice in general words, for the documentation."""
    message: Callable[[RFTJobSpec], str | None]
    """The function that returns the message for a spec, or ``None`` if the condition is false for it."""

    def speak(self, spec: RFTJobSpec) -> Advice | None:
        """Return the advice if the rule's condition is true for the spec, else None."""
        message = self.message(spec)
        return None if message is None else Advice(self.id, self.paths[0], message)
