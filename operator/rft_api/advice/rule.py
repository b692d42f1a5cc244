"""What a piece of advice is."""

from collections.abc import Callable
from typing import NamedTuple

from rft_api.advice.headings import Heading
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
    paths: tuple[str, ...]
    """Fields it reads; the first is the one to change."""
    headings: tuple[Heading, ...]
    """Where the guide says so; none where the advice follows from the API alone."""
    when: str
    """When it speaks."""
    advice: str
    """The guide's advice in our words."""
    message: Callable[[RFTJobSpec], str | None]
    """What it has to say; ``None``: nothing."""

    def speak(self, spec: RFTJobSpec) -> Advice | None:
        """Return the advice, if the spec asks for it."""
        message = self.message(spec)
        return None if message is None else Advice(self.id, self.paths[0], message)
