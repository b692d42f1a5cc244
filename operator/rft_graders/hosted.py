"""Runs a user's environment class in a worker process: begins rollouts, calls tools, and reads the reward.

The class has the form of TRL's environments, with these methods:

- ``reset(**row) -> str | None``: begins a rollout. It may return a text to add to the prompt.
- ``get_reward() -> float``: returns the reward at the end of the rollout.
- ``reply(text) -> str | None``: may be absent, and is not known to TRL. This method gets a turn of the model
  that has no tool call. It returns the next message to the model, or None to end the rollout.
- Every other public method is a tool, which the model can call.

A class with ``rollout(base_url, api_key)`` is an agent. It plays the whole rollout itself, and sends requests
to the model in the form of OpenAI's API. The public methods of an agent are no tools.

This module imports only the standard library, because it is loaded into the process of the user's code.
"""

import bisect
import functools
import inspect
import json
import numbers
import re
import types
import typing
from collections.abc import Callable
from typing import Any

MAX_TEXT_BYTES = 24 * 1024
"""Maximum bytes of a text that an environment returns, written as JSON. A longer text is cut."""
OWN = ("reset", "get_reward", "reply")
"""Public methods of an environment class that the model cannot call as tools."""
_AGENT = {"base_url", "api_key"}
"""The parameters of the method ``rollout`` of an agent. A ``rollout`` with other parameters is a tool."""

_NAMES = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
_ARGUMENT = re.compile(r"^(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)$")
_SECTIONS = ("args:", "arguments:", "parameters:", "returns:", "raises:", "example:", "examples:", "note:")


def tools_of(environment: type) -> list[dict[str, Any]]:
    """Return the tools of an environment class, one for each public method, in the form of OpenAI's API.

    The schema of a tool's arguments comes from the method's type hints and docstring. Raises TypeError if a
    method cannot be a tool, for example because it has no docstring.
    """
    methods = [
        (name, method)
        for name, method in inspect.getmembers(environment, inspect.isroutine)
        if not name.startswith("_") and name not in OWN
    ]
    return [
        {"type": "function", "function": _tool(name, method, _own_parameters(environment, name))}
        for name, method in methods
    ]


def _own_parameters(environment: type, name: str) -> int:
    """Return how many of the first parameters of the tool ``name``, a method, are not set by the model: 1 for
    an ordinary method, whose first parameter is ``self``, and 0 for a static or class method.
    """
    static = inspect.getattr_static(environment, name)
    return 0 if isinstance(static, staticmethod | classmethod) else 1


def _tool(name: str, method: Callable[..., Any], skipped: int) -> dict[str, Any]:
    said, described = documented(inspect.getdoc(method) or "")
    if not said:
        raise TypeError(f"the tool {name} has no docstring: write one that says what the tool does")
    if inspect.isgeneratorfunction(method) or inspect.isasyncgenfunction(method):
        raise TypeError(f"the tool {name} is a generator: return a value, without yield")
    hints = typing.get_type_hints(method)
    properties: dict[str, Any] = {}
    required = []
    for parameter in list(inspect.signature(method).parameters.values())[skipped:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise TypeError(f"the tool {name} has *{parameter.name}: give each argument a name instead")
        if parameter.name not in hints:
            raise TypeError(
                f"the tool {name} has no type hint for {parameter.name}, such as {parameter.name}: str"
            )
        schema = json_type(hints[parameter.name])
        if parameter.name in described:
            schema["description"] = described[parameter.name]
        properties[parameter.name] = schema
        if parameter.default is parameter.empty:
            required.append(parameter.name)
    parameters = {"type": "object", "properties": properties, "required": required}
    return {"name": name, "description": said, "parameters": parameters}


def documented(text: str) -> tuple[str, dict[str, str]]:
    """Split the docstring of a tool. Return the description of the tool, and the descriptions of its
    arguments by name. These are the lines ``name: description`` of the section ``Args:``.
    """
    said: list[str] = []
    arguments: dict[str, str] = {}
    section, current = "", ""
    for line in text.splitlines():
        if line.strip().lower() in _SECTIONS:
            section, current = line.strip().lower(), ""
        elif not section:
            said.append(line.strip())
        elif section in _SECTIONS[:3] and line.strip():
            found = _ARGUMENT.match(line.strip())
            if found and not (current and _indent(line) > _indent_of_arguments(text)):
                current = found[1]
                arguments[current] = found[2]
            elif current:
                arguments[current] = f"{arguments[current]} {line.strip()}".strip()
    return " ".join(filter(None, said)), arguments


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _indent_of_arguments(text: str) -> int:
    """Return the number of spaces before the first argument in the section ``Args:`` of a docstring.

    Return 0 if there is no such section.
    """
    lines = iter(text.splitlines())
    for line in lines:
        if line.strip().lower() in _SECTIONS[:3]:
            return _indent(next((after for after in lines if after.strip()), ""))
    return 0


def json_type(hint: Any) -> dict[str, Any]:
    """Return the JSON schema for a type hint of a tool's argument. Raises TypeError if JSON has no such type.

    The schema of an optional type, such as ``int | None``, does not allow null.
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint in _NAMES:
        return {"type": _NAMES[hint]}
    if hint is Any:
        return {}
    if origin is typing.Literal:
        return {"enum": list(inner)}
    if origin in (typing.Union, types.UnionType):
        kept = [json_type(one) for one in inner if one is not type(None)]
        return kept[0] if len(kept) == 1 else {"anyOf": kept}
    if hint in (list, tuple, set) or origin in (list, tuple, set):
        items = [one for one in inner if one is not ...]
        return {"type": "array", "items": json_type(items[0])} if items else {"type": "array"}
    if hint is dict or origin is dict:
        return {"type": "object"}
    raise TypeError(
        f"the type hint {hint!r} has no form in JSON: use str, int, float, bool, list, dict or Literal"
    )


def is_agent(environment: type) -> bool:
    """Return whether an environment class is an agent: its method ``rollout`` plays a whole rollout, and
    takes ``base_url`` and ``api_key``, with which it sends requests to the model.
    """
    method = getattr(environment, "rollout", None)
    return callable(method) and inspect.signature(method).parameters.keys() >= _AGENT


class Hosted:
    """Runs a user's environment class, with one instance of the class for each rollout. A worker process has
    one such object, and plays one rollout at a time.
    """

    def __init__(self, environment: type) -> None:
        """Read the tools of an environment class.

        Raises TypeError if the class lacks ``reset`` or ``get_reward``, if a method cannot be a tool, or if
        the class has both ``reply`` and an agent's ``rollout``.
        """
        for method in ("reset", "get_reward"):
            if not callable(getattr(environment, method, None)):
                raise TypeError(f"the class {environment.__name__} has no method {method}")
        self._class = environment
        self._is_agent = is_agent(environment)
        if self._is_agent and hasattr(environment, "reply"):
            raise TypeError(
                f"the class {environment.__name__} has rollout, which plays the whole rollout, so its method"
                " reply would never be called: remove one of them"
            )
        self._tools = [] if self._is_agent else tools_of(environment)
        self._instance: Any = None

    @property
    def playing(self) -> bool:
        """Whether a rollout has begun and has no reward yet.

        While this is true, the processes and files of the rollout are not removed.
        """
        return self._instance is not None

    def act(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Run an action of the environment, which ``asked`` describes, and return its result. Both have the
        forms below. Exceptions of the user's code are not caught, except for those of a tool ("failed").

        {"do": "describe"}                             -> {"tools": […], "replies": true, "agent": false}
        {"do": "reset", "row": {…}}                    -> {"text": "…"} or {}
        {"do": "call", "name": "…", "arguments": {…}}  -> {"text": "…"} or {"failed": "…"}
        {"do": "reply", "text": "…"}                   -> {"text": "…"} or {}
        {"do": "rollout", "baseUrl": "…", "apiKey": "…"} -> {}, when the agent has ended
        {"do": "reward"}                               -> {"reward": 0.5}
        {"do": "end"}                                  -> {}, for a rollout that gets no reward

        A result with a text that was too long has also "cut": true.
        """
        if asked["do"] in ("call", "reply", "rollout", "reward") and self._instance is None:
            raise RuntimeError(
                "the worker process of the environment was replaced, so the rollout's state is lost"
            )
        match asked["do"]:
            case "describe":
                replies = hasattr(self._class, "reply")
                return {"tools": self._tools, "replies": replies, "agent": self._is_agent}
            case "reset":
                self._instance = self._class()
                return _said(_awaited(self._instance.reset(**asked["row"])))
            case "call":
                return self._call(asked["name"], asked["arguments"])
            case "reply":
                return _said(_awaited(self._instance.reply(asked["text"])))
            case "rollout":
                _awaited(self._instance.rollout(base_url=asked["baseUrl"], api_key=asked["apiKey"]))
                return {}
            case "reward":
                try:
                    return {"reward": number(_awaited(self._instance.get_reward()))}
                finally:
                    self._end()
            case "end":
                self._end()
                return {}
            case other:
                raise ValueError(f"an environment has no action {other!r}")

    def _end(self) -> None:
        """Forget the rollout. Its asynchronous tasks that still run are cancelled."""
        self._instance = None
        if _runner.cache_info().currsize:
            _runner().run(_cancel_tasks())

    def _call(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Call the tool ``name``. Return ``{"text": …}`` with its result for the model.

        If the tool does not exist or raises an exception, return ``{"failed": …}`` with the error message.
        """
        if name not in [tool["function"]["name"] for tool in self._tools]:
            return {"failed": f"there is no tool {name:.60}"}
        try:
            return {"text": "", **_said(_awaited(getattr(self._instance, name)(**arguments)))}
        except Exception as error:
            return {"failed": f"{type(error).__name__}: {error}"[: MAX_TEXT_BYTES // 8]}


def _awaited(result: Any) -> Any:
    """Return the result of a method that may be asynchronous. If ``result`` is awaitable, such as a
    coroutine, run it to its end, and return its value. Otherwise return ``result`` itself.
    """
    return _runner().run(_wait(result)) if inspect.isawaitable(result) else result


@functools.cache
def _runner() -> Any:
    """Return the event loop of this process. Every call returns the same one.

    So the methods of an environment can share an object that is bound to an event loop, such as a connection.
    """
    import asyncio  # this import takes most of a worker's start, and few environments need it

    return asyncio.Runner()


async def _wait(result: Any) -> Any:
    return await result


async def _cancel_tasks() -> None:
    import asyncio

    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _said(result: Any) -> dict[str, Any]:
    """Return the result of an environment's method as ``{"text": …}`` for the model, or {} if it is None.

    A result that is not a text is written as JSON. A text of more than ``MAX_TEXT_BYTES`` is cut, and the
    returned object has also ``"cut": True``. Raises TypeError for a generator.
    """
    if result is None:
        return {}
    if inspect.isgenerator(result) or inspect.isasyncgen(result):
        raise TypeError("the method returned a generator: return a value, without yield")
    text = result if isinstance(result, str) else _as_json(result)
    encoded = json.dumps(text)
    if len(encoded) <= MAX_TEXT_BYTES:
        return {"text": text}
    room = MAX_TEXT_BYTES - 64  # 64 bytes are for the last line, which says how much is left out
    fitting = bisect.bisect_right(range(MAX_TEXT_BYTES), room, key=lambda end: len(json.dumps(text[:end])))
    kept = text[: fitting - 1]
    return {"text": f"{kept}\n… {len(text) - len(kept)} more characters are left out", "cut": True}


def _as_json(value: Any) -> str:
    """Return a value as JSON. Values that JSON does not have become the most similar ones that it has."""
    try:
        return json.dumps(value, default=_similar, ensure_ascii=False)
    except TypeError:  # a key of a dict is no text and no number
        return json.dumps(_with_texts_as_keys(value), default=_similar, ensure_ascii=False)


def _similar(value: Any) -> Any:
    if callable(getattr(value, "tolist", None)):  # a number or an array of numpy or torch
        return value.tolist()
    if isinstance(value, numbers.Number) and not isinstance(value, complex):  # Decimal and Fraction
        real = float(typing.cast(Any, value))
        return int(real) if real.is_integer() else real
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    return str(value)


def _with_texts_as_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key if isinstance(key, str | int | float) or key is None else str(key): _with_texts_as_keys(item)
            for key, item in value.items()
        }
    return [_with_texts_as_keys(item) for item in value] if isinstance(value, list | tuple) else value


def number(value: Any) -> float:
    """Return the result of ``get_reward`` as a float. It may be a number of numpy or torch.

    Raises TypeError if it is not a number. Raises ValueError if it is not finite.
    """
    if not isinstance(value, bool | int | float):
        try:
            value = float(value)  # a number of numpy or torch
        except (TypeError, ValueError) as error:
            raise TypeError(f"get_reward returned a {type(value).__name__}, not a number") from error
    if not abs(value) < 1e300:
        raise ValueError(f"get_reward returned {value}, not a finite number")
    return float(value)
