"""The tuning guide's advice, as rules that speak when it matters. Advice never refuses a job."""

from rft_api.advice.rules import Advice, AdviceRule, advise

__all__ = ["Advice", "AdviceRule", "advise"]
