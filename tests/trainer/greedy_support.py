"""Compares a server's greedy completions with those of the trained policy."""

import json
import shlex
from collections.abc import Iterable
from typing import Any

import httpx
import torch

PROMPTS = tuple(f"{a}+{b}" for a, b in ((1, 2), (34, 5), (67, 89), (9, 0)))
TOKENS = 16
"""The maximum number of tokens of a completion."""


def greedy(model: Any, tokenizer: Any) -> list[list[int]]:
    """Return the token ids of the greedy completions of ``PROMPTS``, with the end token, as vLLM returns
    them.
    """
    found = []
    for prompt in PROMPTS:
        text = tokenizer.apply_chat_template(_messages(prompt), tokenize=False, add_generation_prompt=True)
        asked = tokenizer.encode(text, add_special_tokens=False)
        answer = model.generate(
            torch.tensor([asked]), attention_mask=torch.ones(1, len(asked)), max_new_tokens=TOKENS,
            do_sample=False, pad_token_id=0,
        )  # fmt: skip
        found.append(answer[0, len(asked) :].tolist())
    return found


def printed_request(lines: Iterable[str]) -> tuple[str, dict[str, Any]] | None:
    """Return the address and the body of the ``curl`` command that ``rft serve`` prints. None: not yet."""
    curl = next((shlex.split(line) for line in lines if line.startswith("curl ")), None)
    return (curl[1], json.loads(curl[curl.index("-d") + 1])) if curl is not None else None


def answered(address: str, body: dict[str, Any]) -> dict[str, Any]:
    """Send a request to the server, and return the answer."""
    answer = httpx.post(address, json=body, timeout=60)
    assert answer.status_code == httpx.codes.OK, answer.text
    return dict(answer.json())


def served(address: str, body: dict[str, Any]) -> list[list[int]]:
    """Return the token ids of the server's completions of ``PROMPTS``.

    ``body`` is the body of the request that ``rft serve`` printed.
    """
    asked = {**body, "max_tokens": TOKENS, "return_token_ids": True}
    return [
        answered(address, {**asked, "messages": _messages(prompt)})["choices"][0]["token_ids"]
        for prompt in PROMPTS
    ]


def _messages(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]
