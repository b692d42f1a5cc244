"""The list of all advice rules that read only the spec of an RFTJob, and nothing about its run."""

from rft_advice import effects, interactions, sampling, training, workflow
from rft_advice.rule import Advice, AdviceRule
from rft_api.job import RFTJobSpec

RULES: tuple[AdviceRule, ...] = (
    *training.RULES,
    *sampling.RULES,
    *interactions.RULES,
    *effects.RULES,
    *workflow.RULES,
)


def advise(spec: RFTJobSpec) -> list[Advice]:
    """Apply all advice rules to the spec of an RFTJob, and return their advice in the order of ``RULES``."""
    return [advice for rule in RULES if (advice := rule.speak(spec)) is not None]
