"""Checks the chat messages of a dataset's row, and converts messages from other formats, such as ShareGPT."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rft_run.rows.strict import kind, value_of

ROLES = ("system", "developer", "user", "assistant", "tool")
SPEAKERS = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
}
"""Maps the values of the field ``from`` in ShareGPT files to the role of the message."""
ANSWERED = "the last message is the assistant's: the model has nothing to answer"

Message = dict[str, Any]


def checked(messages: object) -> list[Message]:
    """Check the chat messages of a dataset's row. Return them, with the content of each message joined to one
    text.

    Raises ValueError if ``messages`` is not a list or is empty, if a message is not valid, or if the last
    message is the assistant's. Then the model has nothing to answer.
    """
    if not isinstance(messages, list):
        raise ValueError(f"messages is {kind(messages)}, not a list")
    if not messages:
        raise ValueError("messages is empty")
    found = [_message(number, message) for number, message in enumerate(messages, start=1)]
    if found[-1]["role"] == "assistant":
        raise ValueError(ANSWERED)
    return found


def _message(number: int, message: object) -> Message:
    if not isinstance(message, dict):
        raise ValueError(f"message {number} is {kind(message)}, not an object")
    role = message.get("role")
    if role not in ROLES:
        raise ValueError(f"message {number}: role {json.dumps(role)} is not one of {', '.join(ROLES)}")
    return {**message, "content": _text(number, message)}


def _text(number: int, message: Mapping[str, Any]) -> str:
    """Return the content of a message as one text. Parts of the type text are joined. ``number`` is the
    number of the message, for errors. Raises ValueError if the content has anything other than text.
    """
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, list) and content:
        return "".join(_part(number, place, part) for place, part in enumerate(content, start=1))
    if content is None and message["role"] == "assistant" and message.get("tool_calls"):
        return ""
    found = "an empty list" if content == [] else kind(content)
    raise ValueError(f"message {number}: content is {found}, not a string")


def _part(number: int, place: int, part: object) -> str:
    """Return the text of one part of a message's content. ``number`` and ``place`` are the numbers of the
    message and of the part, for errors. Raises ValueError if the part is not text.
    """
    where = f"message {number}: part {place} of its content"
    if not isinstance(part, dict):
        raise ValueError(f'{where} is {kind(part)}, not {{"type": "text", "text": …}}')
    if part.get("type") != "text":
        found = json.dumps(part.get("type"))
        raise ValueError(f"{where} has the type {found}: only parts of the type text are read")
    text = part.get("text")
    if not isinstance(text, str):
        raise ValueError(f"{where}: text is {kind(text)}, not a string")
    return text


def from_prompt(prompt: object, system: object) -> list[Message]:
    """Return the chat messages of a dataset's row with the fields ``prompt`` and ``system``.

    - ``prompt``: a text, which becomes the user's message, or a list of messages.
    - ``system``: the text of the system message. None or "": no system message. It is ignored if the prompt
      is a list.

    Raises ValueError if the prompt or ``system`` is not valid.
    """
    if isinstance(prompt, list):
        return checked(prompt)
    if not isinstance(prompt, str):
        raise ValueError(f"prompt is {kind(prompt)}, neither a text nor a list of messages")
    if not prompt.strip():
        raise ValueError("prompt is empty")
    return [*_system(system), {"role": "user", "content": prompt}]


def _system(system: object) -> list[Message]:
    if system is None or system == "":
        return []
    if not isinstance(system, str):
        raise ValueError(f"system is {kind(system)}, not a string")
    return [{"role": "system", "content": system}]


def from_sharegpt(turns: object, system: object) -> tuple[list[Message], str | None]:
    """Convert a ShareGPT conversation. Return its messages without the last one if this is the assistant's
    answer, and the text of this answer.

    The answer is None if the last message is not the assistant's. ``turns`` is the list of messages in the
    file. ``system`` is the text of the system message, or None. It is used only if the conversation does not
    begin with a system message. Raises ValueError if ``turns`` or ``system`` is not valid.
    """
    if not isinstance(turns, list):
        raise ValueError(f"conversations is {kind(turns)}, not a list")
    messages = [_turn(number, turn) for number, turn in enumerate(turns, start=1)]
    if not messages or messages[0]["role"] != "system":
        messages = _system(system) + messages
    answer = messages.pop()["content"] if messages and messages[-1]["role"] == "assistant" else None
    return checked(messages), answer


def _turn(number: int, turn: object) -> Message:
    if not isinstance(turn, dict):
        raise ValueError(f"turn {number} is {kind(turn)}, not an object")
    speaker, said = turn.get("from"), turn.get("value")
    role = SPEAKERS.get(speaker) if isinstance(speaker, str) else None
    if role is None:
        known = ", ".join(SPEAKERS)
        raise ValueError(f'turn {number}: the field "from" is {json.dumps(speaker)}, not one of {known}')
    if not isinstance(said, str):
        raise ValueError(f"turn {number}: value is {kind(said)}, not a string")
    return {"role": role, "content": said}


def tools_of(fields: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return the definitions of the tools in the field ``tools`` of a dataset's row, or None if the row has
    no tools.

    The field must be a list of objects, or such a list as JSON text. Raises ValueError otherwise.
    """
    tools = fields.get("tools")
    if isinstance(tools, str):
        try:
            tools = value_of(tools.encode())
        except ValueError:
            tools = fields["tools"]
    if tools is None or tools == []:
        return None
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        found = "a list with other values" if isinstance(tools, list) else kind(tools)
        raise ValueError(
            f"tools is {found}, not a list of objects; this field is passed to the chat template: if only"
            " graders read it, give it another name"
        )
    return tools


def calls_of(number: int, message: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
    """Return the function calls in the field ``tool_calls`` of a chat message, without the wrapper
    ``{"function": ...}``. Usually each has ``name`` and ``arguments``, but this is not checked.

    ``number`` is the number of the message, for errors. Raises ValueError if the calls are not a list of
    objects.
    """
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list):
        raise ValueError(f"message {number}: tool_calls is {kind(calls)}, not a list")
    for place, call in enumerate(calls, start=1):
        function = call.get("function", call) if isinstance(call, dict) else call
        if not isinstance(function, dict):
            raise ValueError(f"message {number}: tool call {place} is {kind(function)}, not an object")
    return [call.get("function", call) for call in calls]
