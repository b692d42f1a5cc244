"""Advice on a spec. The list is the specification."""

from rft_api.advice import interactions, sampling, training, workflow
from rft_api.advice.rule import Advice, AdviceRule
from rft_api.job import RFTJobSpec

RULES: tuple[AdviceRule, ...] = (
    *training.RULES,
    *sampling.RULES,
    *interactions.RULES,
    *workflow.RULES,
)


def advise(spec: RFTJobSpec) -> list[Advice]:
    """Return what every rule has to say, in the order of the rules."""
    return [advice for rule in RULES if (advice := rule.speak(spec)) is not None]
