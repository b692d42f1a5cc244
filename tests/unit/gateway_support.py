"""A tokenizer with one token per character and some special tokens, and sessions that use it."""

import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jinja2

from rft_trainer.rollout.engine import Generated, Request, SamplingParameters
from rft_trainer.rollout.gateway.dialogue import Dialogue
from rft_trainer.rollout.gateway.session import RolloutLimits, Session

SPECIAL = ("<|im_start|>", "<|im_end|>", "<|eot|>")
END = 1
VOCABULARY = sys.maxunicode + 1 + len(SPECIAL)
"""Number of token ids of ``Characters``."""
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WITH_TOOLS = (
    "{% if tools %}<|im_start|>system\n{% for t in tools %}{{ t | tojson }}{% endfor %}"
    "<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% if m.tool_calls %}{% for c in m.tool_calls %}"
    "[{{ c.function.name }} {{ c.function.arguments | tojson }}]{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DROPS_THOUGHTS = CHATML.replace(
    "{{ m.content }}",
    "{{ m.content if loop.last or m.role != 'assistant' else m.content.split('</think>')[-1] }}",
)
ADD = {
    "type": "function",
    "function": {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}},
}


class Characters:
    """A tokenizer with one token per character. Jinja renders its chat template, as in transformers."""

    def __init__(self, template: str = CHATML) -> None:
        self.chat_template = template

    def apply_chat_template(self, conversation: list[dict[str, Any]], **options: Any) -> Any:
        tokenize, _ = options.pop("tokenize"), options.pop("return_dict", None)
        text = (
            jinja2.Environment(autoescape=False)
            .from_string(self.chat_template)
            .render(messages=conversation, **options)
        )
        return self.encode(text) if tokenize else text

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        pieces = re.findall("|".join(map(re.escape, SPECIAL)) + "|.", text, re.DOTALL)
        return [SPECIAL.index(p) if p in SPECIAL else ord(p) + len(SPECIAL) for p in pieces]

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        return "".join(
            ("" if skip_special_tokens else SPECIAL[t]) if t < len(SPECIAL) else chr(t - len(SPECIAL))
            for t in token_ids
        )


class TemplateReader(Characters):
    """A tokenizer that finds tool calls, like a tokenizer of transformers with a ``response_template``."""

    response_template = "[name {arguments}]"

    def parse_response(self, response: str, *, prefix: str, tools: Any) -> dict[str, Any]:
        import json

        text = response.removesuffix(SPECIAL[END])
        calls = [
            {"type": "function", "function": {"name": name, "arguments": json.loads(arguments)}}
            for name, arguments in re.findall(r"\[(\w+) (.*?)\]", text)
        ]
        return {"role": "assistant", "content": re.sub(r"\[.*\]", "", text), "tool_calls": calls}


LIMITS = RolloutLimits(turns=8, tokens=1000, context=4000, seconds=60.0)
PARAMETERS = SamplingParameters(1.0, 1.0, 0, max_tokens=200)


def generated(tokenizer: Characters, text: str, *, ends: bool = True) -> Generated:
    """Return a completion with this text. If ``ends`` is true, its last token is the end token.

    If ``ends`` is false, the completion was cut off at its maximum length.
    """
    ids = (*tokenizer.encode(text), *((END,) if ends else ()))
    return Generated(ids, tuple(-0.5 for _ in ids), text, "stop" if ends else "length")


def session(tokenizer: Characters, limits: RolloutLimits = LIMITS, **options: Any) -> Session:
    """Return a session of a rollout with seed 7. ``options`` are passed to ``Session``."""
    dialogue = Dialogue(tokenizer, None, frozenset({END}), vocabulary=VOCABULARY)
    return Session(dialogue, PARAMETERS, limits, 7, **options)


class Scripted:
    """A fake sampler. It keeps each request in ``requests``, and answers it with the next of ``texts``.

    ``before`` is called before each batch is sampled.
    """

    def __init__(self, tokenizer: Characters, *texts: str, before: Callable[[], None] = lambda: None) -> None:
        self.requests: list[Request] = []
        self._tokenizer, self._texts, self._before = tokenizer, list(texts), before

    def __call__(self, requests: Sequence[Request]) -> list[Generated]:
        self.requests += requests
        self._before()
        return [generated(self._tokenizer, self._texts.pop(0)) for _ in requests]
