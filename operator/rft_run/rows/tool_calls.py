"""Describes tools to a model in its prompt, and parses the model's tool calls, in one of two styles.

- ``template``: the model's chat template describes the tools. transformers' ``parse_response`` parses the
  calls with the tokenizer's ``response_template``.
- ``text``, for tokenizers without a ``response_template``: the system message describes the tools, or the
  first user message if the chat template has no system messages. A call is JSON between ``<tool_call>`` and
  ``</tool_call>``. The result of a call is a user message between ``<tool_response>`` and
  ``</tool_response>``.
"""

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rft_run.rows.messages import Message, calls_of
from rft_run.rows.strict import value_of

ToolStyle = Literal["template", "text"]
Tools = Sequence[Mapping[str, Any]]

_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
_OPEN = "<tool_call>"
_THOUGHT_BEGINS, _THOUGHT_ENDS = "<think>", "</think>"
_INTRODUCTION = (
    "You can call these tools:\n{tools}\n"
    "To call a tool, answer with one JSON object, like this:\n"
    '<tool_call>{{"name": "TOOL", "arguments": {{"ARGUMENT": "VALUE"}}}}</tool_call>'
)


class MalformedCall(ValueError):
    """A tool call in a model's completion cannot be parsed. The model gets the message of this error as the
    result of the call.
    """


def style_of(tokenizer: Any, asked: ToolStyle | None) -> ToolStyle:
    """Return the style in which tools are described to a model, and in which its tool calls are parsed.

    ``asked`` is the user's choice. If it is None, return ``template`` if transformers can parse the model's
    tool calls with a ``response_template`` of the tokenizer, else ``text``.
    """
    if asked is not None:
        return asked
    return "template" if getattr(tokenizer, "response_template", None) is not None else "text"


def as_text(messages: Sequence[Message], tools: Tools, *, system: bool = True) -> list[Message]:
    """Convert messages for a chat template that does not support tools. The descriptions of the tools are
    added to the system message, and each tool call becomes text of the assistant's message.

    The result of a tool becomes a user message. Successive results become one user message, because chat
    templates may refuse two user messages one after the other.

    ``system``: whether the template supports system messages. If not, the descriptions of the tools are at
    the beginning of the first user message.
    """
    found: list[Message] = []
    for number, message in enumerate(messages, start=1):
        role, content = message["role"], message.get("content") or ""
        if role == "tool":
            content = f"<tool_response>{content}</tool_response>"
            if found and found[-1].get("tool"):
                found[-1]["content"] += f"\n{content}"
            else:
                found.append({"role": "user", "content": content, "tool": True})
            continue
        calls = [_called(function) for function in calls_of(number, message)]
        found.append({"role": role, "content": "\n".join(filter(None, [content, *calls]))})
    found = [{key: one[key] for key in ("role", "content")} for one in found]
    return _introduced(found, tools, system) if tools else found


def _called(function: Mapping[str, Any]) -> str:
    arguments = function.get("arguments") or {}
    given = value_of(arguments.encode()) if isinstance(arguments, str) else arguments
    call = {"name": function.get("name"), "arguments": given}
    return f"<tool_call>{json.dumps(call, ensure_ascii=False)}</tool_call>"


def _introduced(messages: list[Message], tools: Tools, system: bool) -> list[Message]:
    listed = "\n".join(json.dumps(_function(tool), ensure_ascii=False) for tool in tools)
    said = _INTRODUCTION.format(tools=listed)
    first = messages[0] if messages else {"role": "assistant", "content": ""}
    if first["role"] in ("system", "developer"):
        return [{**first, "content": f"{first['content']}\n\n{said}"}, *messages[1:]]
    if system:
        return [{"role": "system", "content": said}, *messages]
    if first["role"] == "user":
        return [{**first, "content": f"{said}\n\n{first['content']}"}, *messages[1:]]
    return [{"role": "user", "content": said}, *messages]


def _function(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = tool.get("function")
    return inner if isinstance(inner, Mapping) else tool


def from_text(text: str, *, in_thought: bool = False) -> Message:
    """Parse a completion in which each tool call is JSON between ``<tool_call>`` and ``</tool_call>``. Return
    it as an assistant's message, with the calls in the field ``tool_calls``.

    A text within a thought, before ``</think>``, is no tool call. The thought stays in the content.
    ``in_thought``: whether the prompt ends with ``<think>``, so that the completion begins within a thought.
    Raises MalformedCall if a tool call in the text is not closed or not valid.
    """
    thought, closed, answer = text.rpartition(_THOUGHT_ENDS)
    if _THOUGHT_BEGINS in answer or (in_thought and not closed):  # the thought has no end
        return _message(text, ())
    calls = [_read(found) for found in _CALL.findall(answer)]
    rest = _CALL.sub("", answer)
    if _OPEN in rest:
        raise MalformedCall("the tool call does not end with </tool_call>")
    return _message(f"{thought}{closed}{rest}".strip() if calls else text, calls)


def _read(text: str) -> dict[str, Any]:
    try:
        call = value_of(text.strip().encode())
    except ValueError as error:
        raise MalformedCall(f"the tool call is not valid JSON: {error}") from error
    if not isinstance(call, dict):
        raise MalformedCall("the tool call is not a JSON object with name and arguments")
    return call


def from_template(
    tokenizer: Any, prompt_ids: Sequence[int], token_ids: Sequence[int], tools: Tools
) -> Message:
    """Parse a completion with transformers' ``parse_response``. Return it as an assistant's message, with the
    tool calls in the field ``tool_calls``.

    ``prompt_ids`` are the tokens of the prompt, and ``token_ids`` are the sampled tokens. Raises
    MalformedCall if ``parse_response`` fails, or if a tool call has no name or its arguments are no object.
    """
    prompt, sampled = tokenizer.decode(list(prompt_ids)), tokenizer.decode(list(token_ids))
    try:
        found = tokenizer.parse_response(sampled, prefix=prompt, tools=list(tools) or None)
    except Exception as error:  # the response template comes with the model, and may raise any error
        raise MalformedCall(f"the tool call cannot be read: {error}") from error
    given = found.get("tool_calls") or []
    calls = [
        call.get("function", call) if isinstance(call, Mapping) else call
        for call in (given if isinstance(given, list) else [given])
    ]
    thought = found.get("reasoning_content") or found.get("thinking")
    message = _message(found.get("content") or "", calls)
    return {**message, "reasoning_content": thought} if thought else message


def _message(content: str, calls: Sequence[object]) -> Message:
    if not calls:
        return {"role": "assistant", "content": content}
    return {"role": "assistant", "content": content, "tool_calls": [_call(call) for call in calls]}


def _call(call: object) -> dict[str, Any]:
    if not isinstance(call, Mapping):
        raise MalformedCall("the tool call is not a JSON object with name and arguments")
    name, arguments = call.get("name"), call.get("arguments", {})
    if not isinstance(name, str) or not name:
        raise MalformedCall("the tool call has no name")
    if not isinstance(arguments, Mapping):
        raise MalformedCall(f"the arguments of the tool call {name:.60} are not a JSON object")
    try:
        name.encode()
        text = json.dumps(arguments, ensure_ascii=False)
        value_of(text.encode())  # refuses NaN and lone surrogates, because records cannot store them
    except (ValueError, RecursionError) as error:
        raise MalformedCall(f"the tool call is not valid JSON: {error}") from error
    return {"type": "function", "function": {"name": name, "arguments": text}}


def canonical(messages: Sequence[Message]) -> list[str]:
    """Return one text for each message, so that messages can be compared. Messages with the same role,
    content and tool calls have the same text.

    A client that sends a conversation again may leave fields out, add fields, or write the arguments of tool
    calls in another form. These differences do not change the text.
    """
    return [_canonical(number, message) for number, message in enumerate(messages, start=1)]


def _canonical(number: int, message: Message) -> str:
    calls = []
    for function in calls_of(number, message):
        arguments = function.get("arguments") or {}
        if isinstance(arguments, str):
            with contextlib.suppress(ValueError):  # arguments that are not JSON stay a text
                arguments = value_of(arguments.encode())
        calls.append([function.get("name"), arguments])
    return json.dumps([message["role"], message.get("content") or "", calls], sort_keys=True)
