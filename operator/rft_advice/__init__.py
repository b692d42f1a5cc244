"""Rules that give advice on the parameters of an RFTJob or on the result of a run. Advice only warns. It
never refuses a job.

Most rules follow a tuning guide about nine parameters,
https://docs.fireworks.ai/fine-tuning/parameter-tuning.md.
"""

from rft_advice.rule import Advice, AdviceRule
from rft_advice.rules import RULES, advise
from rft_advice.run import RUN_RULES, RunRule, recommend
from rft_advice.urgency import advise_job

__all__ = ["RULES", "RUN_RULES", "Advice", "AdviceRule", "RunRule", "advise", "advise_job", "recommend"]
