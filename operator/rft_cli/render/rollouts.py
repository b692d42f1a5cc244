"""Formats rollouts as text for the terminal."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rft_cli.render.views import NONE, number
from rft_run.rollouts import RolloutRecord


def as_text(step: int, group: Sequence[RolloutRecord]) -> list[str]:
    """Return the lines of text about one prompt and its rollouts in a step.

    ``group`` has the rollouts of the prompt. It is not empty. The rollout with the highest reward comes first
    in the text.
    """
    first = group[0]
    rewards = [record.reward for record in group if record.reward is not None]
    mean = sum(rewards) / len(rewards) if rewards else None
    lines = [f"step {step}, row {first.line}: {len(group)} rollouts, mean reward {number(mean)}"]
    for message in first.messages:
        lines += indented(f"{message.get('role')}: {message.get('content')}", "  ")
    if fields := first.fields:
        shown = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in fields.items())
        lines += indented(f"fields: {shown}", "  ")
    for record in sorted(group, key=_reward, reverse=True):
        lines += _rollout(record)
    return lines


def _rollout(record: RolloutRecord) -> Iterator[str]:
    parts = [
        f"reward {number(record.reward)}",
        *(f"{name} {number(score)}" for name, score in record.graders.items()),
        f"advantage {NONE if record.advantage is None else f'{record.advantage:+.3f}'}",
        f"{record.finish_reason} after {record.tokens} tokens",
    ]
    yield "  -- " + ", ".join(parts)
    for name, error in record.errors.items():
        yield from indented(f"error of {name}: {error}", "     ")
    for name, text in record.printed.items():
        yield from indented(f"{name} printed:", "     ")
        yield from indented(text.removesuffix("\n"), "       ")
    if record.limit is not None:
        context = record.limit == "contextLength"
        yield f"     ended by {'training.maxContextLength' if context else f'environment.{record.limit}'}"
    if record.turns is None:
        yield from indented(record.completion, "     ")
    for message in record.turns or []:
        yield from turn(message)


def turn(message: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of text about one message of a rollout with several turns.

    They have the role, the text, and the tool calls of the message.
    """
    content = message.get("content")
    if content:
        yield from indented(f"{message.get('role')}: {content}", "     ")
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else []:
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            said = f"{message.get('role')} calls {function.get('name')} with {function.get('arguments')}"
            yield from indented(said, "     ")


def _reward(record: RolloutRecord) -> float:
    return float("-inf") if record.reward is None else record.reward


def indented(text: str, margin: str) -> list[str]:
    """Return the lines of a text, each with the string ``margin`` before it."""
    return [f"{margin}{line}" for line in text.split("\n")]
