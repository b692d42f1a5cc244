"""The tuning guide's advice, as rules about a spec or a run. Advice only warns. It never refuses a job.

The tuning guide is https://docs.fireworks.ai/fine-tuning/parameter-tuning.md, about nine parameters.
"""

from rft_advice.rule import Advice, AdviceRule
from rft_advice.rules import RULES, advise
from rft_advice.run import RUN_RULES, RunRule, recommend
from rft_advice.urgency import advise_job

__all__ = ["RULES", "RUN_RULES", "Advice", "AdviceRule", "RunRule", "advise", "advise_job", "recommend"]
