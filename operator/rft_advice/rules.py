"""The list of all rules of advice that need only a spec, without a run."""

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
    """Return the advice of all rules that apply to a spec, in the order of ``RULES``."""
    return [advice for rule in RULES if (advice := rule.speak(spec)) is not None]
