"""Rollouts of several turns.

If the prompt of a turn begins with all tokens of the segment, the turn extends the segment. Any other prompt
begins a new segment.
"""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rft_trainer.rollout.gateway.dialogue import MalformedCall, Unextendable
from rft_trainer.rollout.gateway.session import LimitReached, RolloutLimits, Session
from tests.unit.gateway_support import (
    ADD,
    CHATML,
    DROPS_THOUGHTS,
    END,
    SPECIAL,
    WITH_TOOLS,
    Characters,
    TemplateReader,
    generated,
    session,
)

USER = {"role": "user", "content": "1+1?"}
CALL = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'


def turn(
    one: Session,
    tokenizer: Characters,
    messages: list[dict[str, Any]],
    text: str,
    *tools: Any,
    ends: bool = True,
) -> list[dict[str, Any]]:
    """Play a turn in which the model answers ``text``. Return the messages, with this answer as the last one.

    If ``ends`` is false, the answer was cut off at its maximum length.
    """
    asked = one.chat(messages, tools)
    return [*messages, one.record(asked, generated(tokenizer, text, ends=ends))]


def texts(one: Session, tokenizer: Characters) -> list[list[str]]:
    """Divide each segment into spans of sampled tokens and spans of context. Return the spans' texts.

    The texts of sampled tokens are in <>.
    """
    found = []
    for segment in one.segments:
        spans: list[tuple[bool, list[int]]] = [(False, list(segment.prompt_ids))]
        for token, sampled in zip(segment.token_ids, segment.sampled, strict=True):
            if spans[-1][0] != sampled:
                spans.append((sampled, []))
            spans[-1][1].append(token)
        found.append([f"<{tokenizer.decode(ids)}>" if own else tokenizer.decode(ids) for own, ids in spans])
    return found


def test_a_turn_extends_the_sampled_tokens_of_the_turn_before() -> None:
    tokenizer = Characters()
    one = session(tokenizer)
    messages = turn(one, tokenizer, [USER], "two")
    turn(one, tokenizer, [*messages, {"role": "user", "content": "sure?"}], "yes")
    assert texts(one, tokenizer) == [
        [
            "<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n",
            "<two<|im_end|>>",
            "\n<|im_start|>user\nsure?<|im_end|>\n<|im_start|>assistant\n",
            "<yes<|im_end|>>",
        ]
    ]
    assert one.counts["forks"] == 0


def test_a_turn_that_was_cut_gets_its_end_as_context() -> None:
    tokenizer = Characters()
    one = session(tokenizer)
    messages = turn(one, tokenizer, [USER], "tw", ends=False)
    turn(one, tokenizer, [*messages, {"role": "user", "content": "go on"}], "two")
    assert texts(one, tokenizer)[0][1:3] == [
        "<tw>",
        "<|im_end|>\n<|im_start|>user\ngo on<|im_end|>\n<|im_start|>assistant\n",
    ]


def test_tokens_are_kept_where_the_template_would_drop_a_thought() -> None:
    tokenizer = Characters(DROPS_THOUGHTS)
    one = session(tokenizer)
    messages = turn(one, tokenizer, [USER], "<think>hm</think>2")
    turn(one, tokenizer, [*messages, USER], "2")
    (segment,) = one.segments
    assert "<think>hm</think>2<|im_end|>" in tokenizer.decode(segment.token_ids)


def test_a_rewritten_history_begins_a_segment_and_is_context_there() -> None:
    tokenizer = Characters()
    one = session(tokenizer)
    messages = turn(one, tokenizer, [USER], "a long thought and 2")
    short = [messages[0], {"role": "assistant", "content": "2"}, USER]
    turn(one, tokenizer, short, "yes")
    first, second = texts(one, tokenizer)
    assert first[1] == "<a long thought and 2<|im_end|>>"
    assert second == [
        "<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n2<|im_end|>\n"
        "<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n",
        "<yes<|im_end|>>",
    ]
    assert one.counts["forks"] == 1


def test_a_repeated_question_is_a_segment_with_the_same_prompt_and_another_seed() -> None:
    tokenizer = Characters()
    one = session(tokenizer)
    turn(one, tokenizer, [USER], "2")
    turn(one, tokenizer, [USER], "3")
    first, second = one.segments
    assert first.prompt_ids == second.prompt_ids
    assert one.turns[0].seed == 7 != one.turns[1].seed


def test_calls_and_results_are_text_where_the_tokenizer_reads_no_calls() -> None:
    tokenizer = Characters()
    one = session(tokenizer)
    messages = turn(one, tokenizer, [USER], CALL, ADD)
    call = messages[-1]["tool_calls"][0]
    assert call == {
        "id": "call_1_0",
        "type": "function",
        "function": {"name": "add", "arguments": '{"a": 1}'},
    }
    results = [{"role": "tool", "tool_call_id": "call_1_0", "content": text} for text in ("2", "3")]
    turn(one, tokenizer, [*messages, *results], "two", ADD)
    ((prompt, called, result, _),) = texts(one, tokenizer)
    assert json.dumps(ADD["function"]) in prompt
    assert called == f"<{CALL}<|im_end|>>"
    expected = "<tool_response>2</tool_response>\n<tool_response>3</tool_response>"
    assert result == f"\n<|im_start|>user\n{expected}<|im_end|>\n<|im_start|>assistant\n"


def test_calls_in_the_format_of_the_tokenizer_are_read_by_it() -> None:
    tokenizer = TemplateReader(WITH_TOOLS)
    one = session(tokenizer)
    messages = turn(one, tokenizer, [USER], 'so [add {"a": 1}]', ADD)
    assert messages[-1]["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a": 1}'}
    turn(one, tokenizer, [*messages, {"role": "tool", "content": "2"}], "two", ADD)
    ((_, called, result, _),) = texts(one, tokenizer)
    assert called == '<so [add {"a": 1}]<|im_end|>>'
    assert result == "\n<|im_start|>tool\n2<|im_end|>\n<|im_start|>assistant\n"


def test_a_client_that_writes_the_same_call_in_another_form_extends_the_tokens() -> None:
    tokenizer = Characters()
    one = session(tokenizer)
    messages = turn(one, tokenizer, [USER], CALL, ADD)
    again = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"function": {"name": "add", "arguments": {"a": 1}}}],
    }
    turn(one, tokenizer, [messages[0], again, {"role": "tool", "content": "2"}], "two", ADD)
    assert len(one.segments) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<tool_call>{", "does not end with </tool_call>"),
        ("<tool_call>add(1)</tool_call>", "not valid JSON"),
        ("<tool_call>[1]</tool_call>", "not a JSON object"),
        ('<tool_call>{"arguments": {}}</tool_call>', "has no name"),
        ('<tool_call>{"name": "add", "arguments": 3}</tool_call>', "are not a JSON object"),
    ],
)
def test_a_call_that_cannot_be_read_is_recorded_and_counted(text: str, said: str) -> None:
    tokenizer = Characters()
    one = session(tokenizer)
    with pytest.raises(MalformedCall, match=said):
        turn(one, tokenizer, [USER], text, ADD)
    assert one.counts["malformedCalls"] == 1
    spoken = [USER, {"role": "assistant", "content": text}, {"role": "tool", "content": "error"}]
    turn(one, tokenizer, spoken, "sorry", ADD)
    assert len(one.segments) == 1


def test_each_limit_ends_a_rollout() -> None:
    tokenizer = Characters()
    now = [0.0]
    cases: list[tuple[RolloutLimits, str]] = [
        (RolloutLimits(1, 1000, 4000, 60), "maxTurns"),
        (RolloutLimits(8, 4, 4000, 60), "maxTokens"),
        (RolloutLimits(8, 1000, 50, 60), "contextLength"),
        (RolloutLimits(8, 1000, 4000, 5), "maxSeconds"),
    ]
    for limits, name in cases:
        one = session(tokenizer, limits, clock=lambda: now[0])
        messages = turn(one, tokenizer, [USER], "two")
        now[0] += 6
        with pytest.raises(LimitReached):
            one.chat([*messages, USER], ())
        assert one.limit == name
        assert len(one.segments[0].token_ids) == 4


def test_a_turn_may_sample_only_what_the_rollout_has_left() -> None:
    one = session(Characters(), RolloutLimits(8, 150, 4000, 60))
    assert one.chat([USER], ()).request.parameters.max_tokens == 150
    assert session(Characters()).chat([USER], ()).request.parameters.max_tokens == 200


def test_completions_of_text_or_tokens_extend_tokens_too() -> None:
    tokenizer = Characters()
    one = session(tokenizer)
    one.record(one.complete("ab"), generated(tokenizer, "c"))
    ids = [*tokenizer.encode("abc"), END, *tokenizer.encode("d")]
    one.record(one.complete(ids), generated(tokenizer, "e"))
    assert texts(one, tokenizer) == [["ab", "<c<|im_end|>>", "d", "<e<|im_end|>>"]]


def test_a_template_without_an_end_of_turn_is_refused() -> None:
    tokenizer = Characters("{% for m in messages %}{{ m.content }}{% endfor %}")
    one = session(tokenizer)
    messages = turn(one, tokenizer, [USER], "two")
    with pytest.raises(Unextendable, match="no end token"):
        one.chat([*messages, USER], ())


_CONTENT = st.text('ab<>\n{}"', max_size=8).map(lambda text: text + "x")


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(_CONTENT, _CONTENT, st.booleans(), st.booleans()), min_size=1, max_size=8),
    st.sampled_from((CHATML, DROPS_THOUGHTS)),
)
def test_the_tokens_that_are_trained_are_those_that_were_sampled(
    turns: list[tuple[str, str, bool, bool]], template: str
) -> None:
    tokenizer = Characters(template)
    one = session(tokenizer, RolloutLimits(8, 4000, 9000, 60))
    messages: list[dict[str, Any]] = []
    for question, answer, ends, rewrites in turns:
        if rewrites:
            messages = [{**message, "content": message["content"] + "!"} for message in messages]
        messages = turn(one, tokenizer, [*messages, {"role": "user", "content": question}], answer, ends=ends)
    drawn = [token for recorded in one.turns for token in recorded.generated.token_ids]
    trained = [
        token
        for segment in one.segments
        for token, sampled in zip(segment.token_ids, segment.sampled, strict=True)
        if sampled
    ]
    assert sorted(trained) == sorted(drawn)
    for recorded in one.turns:
        whole = (*recorded.prompt_ids, *recorded.generated.token_ids)
        assert any((*s.prompt_ids, *s.token_ids)[: len(whole)] == whole for s in one.segments)
    assert SPECIAL[END] in tokenizer.decode(one.segments[0].prompt_ids)
