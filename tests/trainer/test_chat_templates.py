"""Rollouts of several turns with tools, with the chat templates of published models.

Tool calls that a template renders are parsed again, and each turn extends the tokens of the turn before.
"""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rft_trainer.rollout.engine import Generated, SamplingParameters
from rft_trainer.rollout.gateway.dialogue import Dialogue
from rft_trainer.rollout.gateway.session import RolloutLimits, Session
from tests.trainer.chat_templates_support import TEMPLATES, Published, tokenizer_of

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "price",
        "description": "Return what an item costs in a market.",
        "parameters": {
            "type": "object",
            "properties": {
                "item": {"type": "string", "description": "Name of the item."},
                "market": {"type": "integer", "description": "Number of the market."},
            },
            "required": ["item", "market"],
        },
    },
}
_TEXT = st.text("ab 3é.'", min_size=1, max_size=6).map(lambda text: f"x{text}x")
_ROUNDS = st.lists(st.tuples(_TEXT, _TEXT, st.integers(0, 99), _TEXT, _TEXT), min_size=1, max_size=3)


class Played:
    """A rollout whose completions are given, with the tokenizer of a published model."""

    def __init__(self, published: Published) -> None:
        self.tokenizer: Any = tokenizer_of(published)
        self.end = published.ends[0]
        ends = frozenset(self.tokenizer.convert_tokens_to_ids(end) for end in published.ends)
        dialogue = Dialogue(self.tokenizer, None, ends, vocabulary=len(self.tokenizer))
        assert dialogue.style == ("template" if published.parser else "text")
        self.dialogue, self.ends, self.is_text = dialogue, ends, dialogue.style == "text"
        parameters = SamplingParameters(1.0, 1.0, 0, max_tokens=1000)
        self.session = Session(dialogue, parameters, RolloutLimits(8, 9000, 99_000, 60.0), 7)
        self.messages: list[dict[str, Any]] = []
        self.before: tuple[int, ...] = ()

    def rendered(self, messages: list[dict[str, Any]], **options: Any) -> str:
        """Return what the template itself makes of messages."""
        return str(self.tokenizer.apply_chat_template(messages, tools=[TOOL], tokenize=False, **options))

    def call(self, item: str, market: int) -> str:
        """Return the text with which the model calls the tool, with the token that ends its turn."""
        arguments = {"item": item, "market": market}
        if self.is_text:
            asked = [{"role": "user", "content": "?"}]
            prompt = self.rendered(asked, add_generation_prompt=True)
            thought = "I ask.</think>" if prompt.rstrip().endswith("<think>") else ""
            call = json.dumps({"name": "price", "arguments": arguments})
            return f"{thought}<tool_call>{call}</tool_call>{self.end}"
        function = {"name": "price", "arguments": arguments}
        called = [{"type": "function", "function": function}]
        message = {"role": "assistant", "content": "", "tool_calls": called}
        prompt = self.rendered(self.messages, add_generation_prompt=True)
        whole = self.rendered([*self.messages, message])
        assert whole.startswith(prompt)
        ids = self.tokenizer.encode(whole[len(prompt) :], add_special_tokens=False)
        ends = [place for place, token in enumerate(ids) if token in self.ends]
        return str(self.tokenizer.decode(ids[: ends[0] + 1]))

    def turn(self, completion: str) -> dict[str, Any]:
        """Play a turn with this completion. Return the assistant's message, which is also added."""
        asked = self.session.chat(self.messages, [TOOL])
        prompt = asked.request.prompt_token_ids
        assert prompt[: len(self.before)] == self.before
        if self.before and not self.is_text:
            tail = self.tokenizer.decode(list(prompt[len(self.before) :]))
            assert self.rendered(self.messages, add_generation_prompt=True).endswith(tail)
        assert "rftturn" not in self.tokenizer.decode(list(prompt))
        ids = tuple(self.tokenizer.encode(completion, add_special_tokens=False))
        text = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        message = self.session.record(asked, Generated(ids, tuple(-0.5 for _ in ids), text, "stop"))
        self.before = (*prompt, *ids)
        self.messages.append(message)
        return message


@pytest.mark.parametrize("published", TEMPLATES, ids=lambda one: f"{one.name}-{one.parser or 'text'}")
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rounds=_ROUNDS)
def test_calls_are_parsed_and_turns_extend_the_sampled_tokens(
    published: Published, rounds: list[tuple[str, str, int, str, str]]
) -> None:
    played = Played(published)
    for question, item, market, result, answer in rounds:
        played.messages.append({"role": "user", "content": question})
        message = played.turn(played.call(item, market))
        [call] = message["tool_calls"]
        assert call["function"]["name"] == "price"
        assert json.loads(call["function"]["arguments"]) == {"item": item, "market": market}
        played.messages.append({"role": "tool", "content": result, "tool_call_id": call["id"]})
        played.turn(answer + played.end)
    [segment] = played.session.segments
    drawn = [token for turn in played.session.turns for token in turn.generated.token_ids]
    pairs = zip(segment.token_ids, segment.sampled, strict=True)
    assert [token for token, sampled in pairs if sampled] == drawn


@pytest.mark.parametrize("published", TEMPLATES, ids=lambda one: f"{one.name}-{one.parser or 'text'}")
def test_a_call_that_cannot_be_read_is_answered_by_a_message_that_the_template_prints(
    published: Published,
) -> None:
    played = Played(published)
    played.messages.append({"role": "user", "content": "What does an egg cost?"})
    played.turn(f"I do not know.{played.end}")
    played.messages.append({"role": played.dialogue.failure_role, "content": "no such tool"})
    asked = played.session.chat(played.messages, [TOOL])
    assert "no such tool" in played.tokenizer.decode(list(asked.request.prompt_token_ids))


@pytest.mark.parametrize("name", ["gemma", "llama3"])
def test_a_template_without_tools_shows_them_to_the_model(name: str) -> None:
    played = Played(next(one for one in TEMPLATES if one.name == name and not one.parser))
    played.messages.append({"role": "user", "content": "What does an egg cost?"})
    text = played.tokenizer.decode(
        list(played.session.chat(played.messages, [TOOL]).request.prompt_token_ids)
    )
    assert "Return what an item costs in a market." in text
    assert text.index("You can call these tools") < text.index("What does an egg cost?")
