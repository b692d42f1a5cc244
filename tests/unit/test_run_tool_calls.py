"""Tool calls that a tokenizer finds in its own format: how they are read, and which are malformed."""

from typing import Any

import pytest

from rft_run.rows.tool_calls import MalformedCall, from_template, from_text


class Tokenizer:
    """A fake tokenizer whose format finds the given calls in every text."""

    def __init__(self, calls: Any) -> None:
        self._calls = calls

    def decode(self, _ids: list[int]) -> str:
        return ""

    def parse_response(self, _text: str, **_options: Any) -> dict[str, Any]:
        return {"content": "", "tool_calls": self._calls}


@pytest.mark.parametrize(
    "calls",
    [
        [["price"]],
        ["price"],
        "price",
        [{"function": "price"}],
        [{"name": "price", "arguments": {"share": float("nan")}}],
        [{"name": "price", "arguments": {"name": "\ud83d"}}],
        [{"name": "\ud83d", "arguments": {}}],
        [{"arguments": {}}],
    ],
)
def test_a_call_that_is_no_object_of_json_is_malformed_and_ends_nothing(calls: Any) -> None:
    with pytest.raises(MalformedCall):
        from_template(Tokenizer(calls), (), (), ())


def test_a_call_is_read_with_and_without_its_wrapper() -> None:
    call = {"name": "price", "arguments": {"name": "apple"}}
    for given in ([call], call, [{"type": "function", "function": call}]):
        message = from_template(Tokenizer(given), (), (), ())
        assert message["tool_calls"][0]["function"] == {"name": "price", "arguments": '{"name": "apple"}'}


CALL = '<tool_call>{"name": "buy", "arguments": {}}</tool_call>'


@pytest.mark.parametrize(
    ("text", "in_thought", "calls"),
    [
        (f"I buy. {CALL}", False, 1),
        (f"<think>{CALL}, but I do not want that.</think>I buy nothing.", False, 0),
        (f"{CALL}, but I do not want that.</think>I buy nothing.", True, 0),
        ("<think>No <tool_call> is needed.</think>I buy nothing.", False, 0),
        (f"<think>A long thought {CALL}", False, 0),
        (f"A long thought {CALL}", True, 0),
        (f"<think>{CALL} is the form.</think>{CALL}{CALL}", False, 2),
        (f"It is the form.</think>{CALL}", True, 1),
    ],
)
def test_a_call_within_a_thought_is_none(text: str, in_thought: bool, calls: int) -> None:
    message = from_text(text, in_thought=in_thought)
    assert len(message.get("tool_calls", ())) == calls
    if not calls:
        assert message["content"] == text
