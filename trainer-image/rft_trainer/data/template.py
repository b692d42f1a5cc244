"""Finds out which parts of a conversation a chat template drops. A template may drop parts without an error.

For each structure of a conversation (roles, tool calls, tools) a test conversation of the same structure is
rendered, the probe. Its texts are unique markers. If a marker is missing in the rendered text, the template
drops the text in this place.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, NamedTuple, Protocol

from rft_graders.thought import opens_thought
from rft_run.rows.messages import Message, calls_of
from rft_run.rows.strict import kind, value_of

_LAST_TOKENS = 16
"""Number of tokens at a prompt's end that are searched for ``<think>``. The tag is never longer."""

Tools = list[dict[str, Any]] | None
Structure = tuple[Any, ...]
"""The structure of a conversation: roles, tool calls and keys of its messages.

A template renders all conversations of the same structure in the same way.
"""


class Tokenizer(Protocol):
    """The methods of a tokenizer that this package uses."""

    def apply_chat_template(self, conversation: list[Message], **options: Any) -> Any:
        """Return a conversation's token ids, or its text with ``tokenize=False``."""

    def decode(self, token_ids: list[int]) -> Any:
        """Return the text of token ids, with special tokens."""


class Lost(NamedTuple):
    """The parts of a test conversation that a chat template drops: its text lacks their markers."""

    messages: tuple[int, ...]
    """Numbers, from 1, of the messages that the template drops completely."""
    parts: tuple[str, ...]
    """Descriptions of single parts that the template drops, such as tool calls of a message."""

    @property
    def weight(self) -> tuple[int, int]:
        """The numbers of dropped messages and of dropped parts, as a sort key.

        The more the template drops, the greater is the key. One dropped message counts more than any number
        of dropped parts.
        """
        return len(self.messages), len(self.parts)


@dataclass(frozen=True)
class MessageForm:
    """The changes to messages before they are passed to a chat template, so that it drops nothing of them.

    They are the same for all conversations with the same roles, tool calls and keys.
    """

    developer: str
    """The role that messages of the role ``developer`` get. It is ``developer`` itself or ``system``."""
    text_arguments: bool
    """Whether arguments of tool calls are passed as JSON text, not as objects."""
    notes: tuple[str, ...] = ()
    """Warnings for the user, such as parts of messages that the template drops. Each is logged once."""
    lost: str = ""
    """The error message for rows of this structure, if they cannot be rendered. Empty if they can."""

    def applied(self, messages: Sequence[Message]) -> list[Message]:
        """Return changed copies of the messages, ready for the chat template.

        Raises ValueError if the arguments of a tool call are not a JSON object.
        """
        return [self._message(number, message) for number, message in enumerate(messages, start=1)]

    def _message(self, number: int, message: Message) -> Message:
        changed = dict(message)
        if changed["role"] == "developer":
            changed["role"] = self.developer
        if "tool_calls" in changed:
            calls = calls_of(number, message)
            if not calls:  # null or an empty list: templates only test whether the key exists
                del changed["tool_calls"]
            else:
                changed["tool_calls"] = [
                    _with_function(call, self._function(f"message {number}: tool call {place}", function))
                    for place, (call, function) in enumerate(
                        zip(message["tool_calls"], calls, strict=True), start=1
                    )
                ]
        return changed

    def _function(self, where: str, function: dict[str, Any]) -> dict[str, Any]:
        if "arguments" not in function:
            return function
        arguments = _object(where, function["arguments"])
        if self.text_arguments:
            return function | {"arguments": json.dumps(arguments, ensure_ascii=False)}
        return function | {"arguments": arguments}


def _with_function(call: dict[str, Any], function: dict[str, Any]) -> dict[str, Any]:
    return call | {"function": function} if "function" in call else function


def _object(where: str, arguments: object) -> dict[str, Any]:
    """Return the arguments of a tool call as a dict. ``arguments``: a dict, or its JSON text.

    Raises ValueError if ``arguments`` is anything else. ``where``: the place in the row, for the message.
    """
    found = arguments
    if isinstance(arguments, str):
        try:
            found = value_of(arguments.encode())
        except ValueError as error:
            raise ValueError(f"{where}: the arguments cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{where}: its arguments are {kind(found)}, not an object")
    return found


def structure_of(messages: Sequence[Message], tools: Tools) -> Structure:
    """Return the structure of a conversation. A chat template treats equal structures in the same way.

    The result has: whether there are tools, and for each message the role, whether there is text, the number
    of tool calls, and the keys. Raises ValueError for malformed tool calls.
    """
    each = (
        (message["role"], bool(message["content"].strip()), len(calls_of(number, message)), *sorted(message))
        for number, message in enumerate(messages, start=1)
    )
    return (tools is not None, *each)


class ChatTemplate:
    """A tokenizer's chat template, with the arguments that a run passes to it."""

    def __init__(self, tokenizer: Tokenizer, arguments: Mapping[str, Any]) -> None:
        self._tokenizer, self._arguments = tokenizer, arguments

    def ids(self, messages: list[Message], tools: Tools) -> tuple[int, ...]:
        """Return a conversation's token ids. Raises ValueError if the template refuses the conversation."""
        return tuple(self._applied(messages, tools, tokenize=True, return_dict=False))

    def text(self, messages: list[Message], tools: Tools) -> str:
        """Return a conversation as text. Raises ValueError if the template refuses the conversation."""
        return str(self._applied(messages, tools, tokenize=False))

    @cached_property
    def has_system(self) -> bool:
        """Whether the template prints system messages. Some templates refuse or drop them."""
        return self._prints("system", ("system", "user"))

    @cached_property
    def has_single_results(self) -> bool:
        """Whether the template prints the result of a tool after a message without tool calls."""
        return self._prints("tool", ("user", "assistant", "tool"))

    def _prints(self, role: str, roles: Sequence[str]) -> bool:
        """Return whether the template prints the message of ``role`` in a conversation of ``roles``."""
        messages = [{"role": each, "content": _content(number)} for number, each in enumerate(roles)]
        try:
            return _content(roles.index(role)) in self.text(messages, None)
        except ValueError:
            return False

    def opens_thought(self, ids: Sequence[int]) -> bool:
        """Return whether a prompt ends with ``<think>``, so that a completion begins with a thought."""
        return opens_thought(self._tokenizer.decode(list(ids[-_LAST_TOKENS:])))

    def _applied(self, messages: list[Message], tools: Tools, **options: Any) -> Any:
        given = {"tools": tools} if tools is not None else {}
        try:
            return self._tokenizer.apply_chat_template(messages, **{**self._arguments, **given, **options})
        except Exception as error:  # templates are programs by the model's authors and may raise any error
            raise ValueError(f"the chat template refuses these messages: {error}") from error

    def form(self, messages: Sequence[Message], tools: Tools) -> MessageForm:
        """Return how to change messages of this structure, so that the template drops nothing of them.

        The possible changes are tried with a test conversation. If the template always drops something,
        return the change with which it drops least. Raises ValueError if the template refuses the messages
        after every change.
        """
        probe, marked_tools = _probe(messages), _probe_tools(tools)
        refused: ValueError | None = None
        best: tuple[MessageForm, Lost] | None = None
        for form in _forms(messages):
            try:
                text = self._applied(form.applied(probe), marked_tools, tokenize=False)
            except ValueError as error:
                refused = refused or error
                continue
            lost = _lost(str(text), probe, marked_tools)
            if best is None or lost.weight < best[1].weight:
                best = form, lost
            if not any(lost.weight):
                break
        if best is None:
            assert refused is not None
            raise refused
        return _with_warnings(*best, messages)


def _forms(messages: Sequence[Message]) -> Iterator[MessageForm]:
    """Yield each possible change to the messages for a chat template, the preferred one first.

    The changes differ in the role that replaces ``developer``, and in whether the arguments of tool calls are
    objects or JSON text.
    """
    developer = any(message["role"] == "developer" for message in messages)
    calls = any(message.get("tool_calls") for message in messages)
    for role, text in product(
        ("developer", "system") if developer else ("developer",), (False, True) if calls else (False,)
    ):
        yield MessageForm(role, text)


def _with_warnings(form: MessageForm, lost: Lost, messages: Sequence[Message]) -> MessageForm:
    """Return a copy of ``form`` with warnings about the parts of messages that the template drops.

    If the template drops whole messages, the copy also has the error message for rows of this structure.
    ``lost``: the dropped parts. ``messages``: messages of this structure.
    """
    notes = [f"the chat template drops {part}" for part in lost.parts]
    if form.developer != "developer" and any(message["role"] == "developer" for message in messages):
        notes.append("the chat template drops messages of the role developer: they get the role system")
    said = ""
    if lost.messages:
        numbers = ", ".join(f"message {number} ({messages[number - 1]['role']})" for number in lost.messages)
        said = (
            f"the chat template drops {numbers}: remove such messages, or use a model whose template prints"
            " them"
        )
    return MessageForm(form.developer, form.text_arguments, tuple(notes), said)


def _probe(messages: Sequence[Message]) -> list[Message]:
    """Return a copy of the messages in which unique markers replace the texts.

    The texts are contents, and the names of functions and arguments in tool calls. A marker that is missing
    in the rendered text shows that the chat template drops the text in this place.
    """
    probe = [deepcopy(message) for message in messages]
    for number, message in enumerate(probe, start=1):
        if message["content"].strip():
            message["content"] = _content(number)
        for place, function in enumerate(calls_of(number, message), start=1):
            function["name"] = _call(number, place)
            if "arguments" in function:
                function["arguments"] = {_argument(number, place): "x"}
    return probe


def _probe_tools(tools: Tools) -> Tools:
    marked = [deepcopy(tool) for tool in tools] if tools is not None else None
    for number, tool in enumerate(marked or [], start=1):
        inner = tool.get("function", tool)
        if isinstance(inner, dict):
            inner["name"] = _tool(number)
    return marked


def _content(number: int) -> str:
    return f"rftcontent{number}x"


def _call(number: int, place: int) -> str:
    return f"rftcall{number}x{place}x"


def _argument(number: int, place: int) -> str:
    return f"rftargument{number}x{place}x"


def _tool(number: int) -> str:
    return f"rfttool{number}x"


def _lost(text: str, probe: Sequence[Message], tools: Tools) -> Lost:
    """Return the parts of a test conversation that the chat template drops.

    - ``text``: the rendered text. It lacks the markers of dropped parts.
    - ``probe``, ``tools``: the messages and tools of the test conversation, with markers as their texts.
    """
    messages, parts = [], []
    for number, message in enumerate(probe, start=1):
        content = [_content(number)] if message["content"].strip() else []
        functions = calls_of(number, message)
        names = [_call(number, place) for place in range(1, len(functions) + 1)]
        if (content or names) and not any(marker in text for marker in (*content, *names)):
            messages.append(number)
            continue
        role = message["role"]
        if any(marker not in text for marker in content):
            parts.append(f"the content of messages of the role {role} that have tool calls")
        if any(marker not in text for marker in names):
            parts.append(f"tool calls of messages of the role {role}")
        given = [_argument(number, n) for n, one in enumerate(functions, start=1) if "arguments" in one]
        if not all(_as_json(marker, text) for marker in given):
            parts.append(f"arguments of tool calls of the role {role}, or does not print them as JSON")
    if tools and not any(_tool(number) in text for number in range(1, len(tools) + 1)):
        parts.append("the tools of a row: the model does not see them")
    return Lost(tuple(messages), tuple(dict.fromkeys(parts)))


def _as_json(marker: str, text: str) -> bool:
    """Return whether a chat template printed the arguments of a tool call as a JSON object.

    - ``marker``: the name of an argument. ``text``: the rendered text.

    False if the name is missing, or is part of Python code ('name') or of a JSON string in JSON (\\"name).
    """
    return marker in text and f"'{marker}'" not in text and f'\\"{marker}' not in text
