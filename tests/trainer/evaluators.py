"""The source code of evaluators that were written for these tests.

Each evaluator has the interface of a library: trl, OpenAI, eval-protocol, reward-kit or verl. These libraries
are not installed.
"""

TRL = """
import re

def format_reward(completions, **kwargs):
    return [1.0 if re.search(r"42$", completion[0]["content"]) else 0.0 for completion in completions]
"""
TRL_COLUMNS = """
def length_reward(prompts, completions, completion_ids, answer, log_extra=None, trainer_state=None, **kwargs):
    assert prompts[0][0]["role"] == "user" and list(completion_ids[0]) == [1, 2, 3], completion_ids
    assert kwargs["level"] == ["easy"], kwargs
    return [float(c[0]["content"].endswith(a)) for c, a in zip(completions, answer)]
"""
TRL_TEXTS = """
def text_reward(prompts: list[str], completions: list[str], answer: list[str], **kwargs) -> list[float]:
    assert prompts == ["What is 6 x 7?"], prompts
    return [float(c.endswith(a)) for c, a in zip(completions, answer)]
"""
TRL_ASYNC = """
import asyncio

async def async_reward(completions, answer, **kwargs):
    await asyncio.sleep(0)
    return [float(c[0]["content"].endswith(a)) for c, a in zip(completions, answer)]
"""
TRL_OBJECT = """
class Scaled:
    __name__ = "scaled"
    def __init__(self, most):
        self.most = most
    def __call__(self, completions, answer, completion_ids, **kwargs):
        return [self.most * c[0]["content"].endswith(a) for c, a in zip(completions, answer)]

scaled = Scaled(most=1.0)
"""
TRL_TOKENS = """
def overlong_reward(completion_ids, **kwargs):
    return [float(len(ids) == 3 and c[0]["content"].endswith("42"))
            for ids, c in zip(completion_ids, kwargs["completions"])]
"""
OPENAI = """
def grade(sample: dict, item: dict) -> float:
    return 1.0 if sample["output_text"].strip().endswith(item["answer"]) else 0.0
"""
EVAL_PROTOCOL = """
from __future__ import annotations
import functools
from typing import Any
from pydantic import BaseModel

class Message(BaseModel):
    role: str
    content: str | None = None

class EvaluateResult(BaseModel):
    score: float
    is_score_valid: bool = True
    reason: str | None = None
    metrics: dict[str, Any] = {}

def reward_function(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        kwargs["messages"] = [Message.model_validate(message) for message in kwargs["messages"]]
        return function(*args, **kwargs)
    return wrapper

@reward_function
def evaluate(messages: list[Message], ground_truth: str | None = None, **kwargs) -> EvaluateResult:
    assert [message.role for message in messages] == ["user", "assistant"]
    right = messages[-1].content.endswith(ground_truth)
    return EvaluateResult(score=float(right), reason="compared", metrics={"level": kwargs["level"]})
"""
VERL = """
def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    assert data_source == "arithmetic" and extra_info == {"index": 7}, (data_source, extra_info)
    return {"score": float(solution_str.endswith(ground_truth)), "acc": True}
"""
VERL_OPTIONS = """
def compute_score(solution_str, ground_truth, method="strict", format_score=0.0, score=1.0):
    assert method == "strict"
    return score if solution_str.endswith(ground_truth) else format_score
"""
VERL_TEXT = """
def compute_score(predict_str: str, ground_truth: str, format_score: float = 0.0) -> float:
    return 1.0 if predict_str.endswith(ground_truth) else format_score
"""
VERL_BATCH = """
def compute_score_batched(data_sources, solution_strs, ground_truths, extra_infos):
    return [float(s.endswith(g)) for s, g in zip(solution_strs, ground_truths)]
"""
