"""Computes the token ids of a conversation: of its first prompt, and of the text between two model turns.

The tokens of earlier turns are never rendered again. A later prompt has three parts: the earlier prompt, the
sampled tokens, and the tail. The tail has the end of the model's turn, the new messages, and the beginning of
the model's next turn.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from rft_run.rows.messages import Message, calls_of
from rft_run.rows.tool_calls import (
    MalformedCall,
    Tools,
    ToolStyle,
    as_text,
    canonical,
    from_template,
    from_text,
    style_of,
)
from rft_trainer.data.template import ChatTemplate

__all__ = ["Dialogue", "MalformedCall", "Unextendable", "canonical"]

_MARKER = "rftturn"


class Unextendable(ValueError):
    """Error: the chat template has no token that ends the model's turn, so no message can follow the turn."""


class Dialogue:
    """Renders conversations into token ids, and reads messages from the model's tokens."""

    def __init__(
        self,
        tokenizer: Any,
        chat_template_args: Mapping[str, Any] | None,
        ends: frozenset[int],
        tools: ToolStyle | None = None,
        *,
        vocabulary: int,
    ) -> None:
        """Prepare for a tokenizer and its chat template.

        - ``chat_template_args``: further arguments for the chat template.
        - ``ends``: the tokens with which the model ends its turn.
        - ``tools``: how tools are shown to the model. None: ``style_of`` chooses.
        - ``vocabulary``: number of token ids that the model knows. They are counted from 0.
        """
        self.vocabulary = vocabulary
        arguments = {**(chat_template_args or {}), "add_generation_prompt": True}
        self._template = ChatTemplate(tokenizer, arguments)
        self._tokenizer = tokenizer
        self._ends = ends
        added = getattr(tokenizer, "added_tokens_decoder", {})
        self._special = ends | {number for number, token in added.items() if token.special}
        self.style = style_of(tokenizer, tools)

    def first(self, messages: Sequence[Message], tools: Tools) -> tuple[int, ...]:
        """Return the token ids of the first prompt of a conversation: its messages and tools.

        Raises ValueError if the chat template refuses the messages.
        """
        if self.style == "text":
            return self._template.ids(self._form(self._as_text(messages, tools), ()), None)
        return self._template.ids(self._form(messages, tools), _listed(tools))

    def tail(self, messages: Sequence[Message], answered: int, last: int, tools: Tools) -> tuple[int, ...]:
        """Return the token ids between one turn of the model and its next turn.

        They are the end of the earlier turn, the messages after this turn, and the beginning of the next one.

        - ``answered``: the index of the earlier turn's message in ``messages``.
        - ``last``: the last sampled token of the earlier turn. If it is an end token, it is not repeated, and
          no other token that only ends the message is added.

        Raises:
            Unextendable: the template has no end token after the assistant's message.
            ValueError: the template refuses the messages.
        """
        marked = [deepcopy(message) for message in messages]
        markers = _mark(marked[answered])
        if self.style == "text":
            text = self._template.text(self._form(self._as_text(marked, tools), ()), None)
        else:
            text = self._template.text(self._form(marked, tools), _listed(tools))
        # The first place of each marker: gpt-oss prints the name of a tool again beside the tool's result.
        found, closing = max((text.find(marker) + len(marker), marker) for marker in markers)
        after = text[found:]
        for marker, own in markers.items():
            after = after.replace(marker, own)
        ids = self._tokenizer.encode(after, add_special_tokens=False)
        # A template may end an earlier message with another token than the model, as that of gpt-oss. After
        # the name of a tool call, special tokens may also come before the arguments.
        is_text = self.style == "text" or closing == _marker(0)
        ending = self._special if is_text else self._ends
        place = next((place for place, token in enumerate(ids) if token in ending), None)
        if _MARKER not in text or place is None:
            raise Unextendable(
                "the chat template drops the assistant's message, or has no end token after it, so the next"
                " message cannot be appended to the sampled tokens; use a model whose template keeps the"
                " message and has an end token after it"
            )
        tail = tuple(ids[place:])
        is_ended = last == tail[0] or (last in self._ends and tail[0] not in self._ends)
        return tail[1:] if is_ended else tail

    def message(
        self, prompt_ids: Sequence[int], token_ids: Sequence[int], text: str, tools: Tools
    ) -> Message:
        """Convert a completion into the assistant's message, with its tool calls.

        ``text``: the text of the sampled tokens ``token_ids``. ``tools``: the tools in the prompt. Raises
        MalformedCall if the completion has a tool call that cannot be read.
        """
        if not tools:
            return {"role": "assistant", "content": text}
        if self.style == "text":
            return from_text(text, in_thought=self._template.opens_thought(prompt_ids))
        return from_template(self._tokenizer, prompt_ids, token_ids, tools)

    @property
    def failure_role(self) -> str:
        """The role of the message that answers a tool call which cannot be read: ``tool`` or ``user``.

        It is ``user`` if the chat template refuses or drops a tool's result that follows no tool call.
        """
        return "tool" if self.style == "text" or self._template.has_single_results else "user"

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of token ids, with special tokens."""
        return str(self._tokenizer.decode(list(token_ids)))

    def encode(self, text: str) -> tuple[int, ...]:
        """Return the token ids of a text. The tokenizer adds no special tokens at its beginning or end."""
        return tuple(self._tokenizer.encode(text, add_special_tokens=False))

    def _as_text(self, messages: Sequence[Message], tools: Tools) -> list[Message]:
        return as_text(messages, tools, system=self._template.has_system)

    def _form(self, messages: Sequence[Message], tools: Tools) -> list[Message]:
        """Change messages so that the chat template drops as little of them as possible. Return the result.

        Raises ValueError if the template still drops a whole message or the tools.
        """
        full = [{**message, "content": message.get("content") or ""} for message in messages]
        form = self._template.form(full, _listed(tools))
        if form.lost:
            raise ValueError(form.lost)
        if any("tools of a row" in note for note in form.notes):
            raise ValueError("the chat template drops the tools: set environment.tools: text")
        return form.applied(full)


def _mark(message: Message) -> dict[str, str]:
    """Replace a message's content and the names of its tool calls by unique texts, the markers.

    Return the replaced texts by their markers. In a rendered conversation, the markers show where the message
    ends.
    """
    replaced = {_marker(0): str(message.get("content") or "")}
    message["content"] = _marker(0)
    for place, function in enumerate(calls_of(1, message), start=1):
        replaced[_marker(place)] = str(function.get("name") or "")
        function["name"] = _marker(place)
    return replaced


def _marker(place: int) -> str:
    return f"{_MARKER}{place}x"


def _listed(tools: Tools) -> list[dict[str, Any]] | None:
    return [dict(tool) for tool in tools] or None
