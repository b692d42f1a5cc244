"""Calls a user's function by the names of its parameters, and reads the score in its result.

This module imports only the standard library, because it is loaded into the process of the user's code.
"""

import functools
import inspect
import json
from collections.abc import Awaitable, Callable, Mapping
from inspect import Parameter
from typing import Any, NamedTuple, SupportsFloat


class Asked(NamedTuple):
    """The input of a grader: completion, row with messages, and token ids (None if they are not known)."""

    completion: str
    row: dict[str, Any]
    token_ids: list[int] | None = None

    def conversation(self) -> list[dict[str, Any]]:
        """Return the messages of the row, and the completion as the last message."""
        return [*self.row["messages"], {"role": "assistant", "content": self.completion}]


Grade = Callable[[Asked], float]


class CallShape(NamedTuple):
    """One of the lists of parameters that a user's function may have, such as ``(completion, row)``."""

    shown: str
    """The list of parameters as error messages show it, such as ``(messages, …)``."""
    known_by: frozenset[str]
    """Parameter names that a function must have to be called with this list of parameters."""
    names: frozenset[str]
    """All parameter names in this list. A function may lack those that are not in ``known_by``."""
    values: Callable[[Asked], dict[str, Any]]
    """Returns the arguments with which the user's function is called to score one completion, by parameter
    name. An argument is left out if it has no value, for example because the row lacks the field.
    """
    columns: bool = False
    """True: a parameter that is not in ``names`` gets the row's field of the same name. False: it gets no
    value, so it needs a default.
    """
    batch: bool = False
    """True: the function scores a list of rollouts. Each argument and the result are lists with one item for
    each rollout. The list always has one rollout, because a worker scores one at a time.
    """


def _text(asked: Asked) -> dict[str, Any]:
    return {"completion": asked.completion, "row": asked.row}


def _whole_row(asked: Asked) -> dict[str, Any]:
    return {"row": {**asked.row, "messages": asked.conversation()}}


def _sample(asked: Asked) -> dict[str, Any]:
    """Return the arguments ``item`` (the row) and ``sample``, as in the python graders of OpenAI.

    ``sample`` has the completion in three ways: as a text, as the JSON in this text (None if it is not
    JSON), and as a message.
    """
    try:
        parsed = json.loads(asked.completion)
    except (ValueError, RecursionError):
        parsed = None
    message = {"role": "assistant", "content": asked.completion}
    sample = {"output_text": asked.completion, "output_json": parsed, "choices": [{"message": message}]}
    return {"sample": sample, "item": asked.row}


def _messages(asked: Asked) -> dict[str, Any]:
    return {"messages": asked.conversation(), "original_messages": asked.row["messages"]}


def _solution(asked: Asked) -> dict[str, Any]:
    row, nested = asked.row, asked.row.get("reward_model")
    gold = nested if "ground_truth" not in row and isinstance(nested, dict) else row
    known = {
        **({"data_source": row["data_source"]} if "data_source" in row else {}),
        **({"ground_truth": gold["ground_truth"]} if "ground_truth" in gold else {}),
    }
    texts = dict.fromkeys(_SOLUTIONS, asked.completion)
    return {**texts, "extra_info": row.get("extra_info", {}), **known}


def _solutions(asked: Asked) -> dict[str, Any]:
    return {f"{name}s": [value] for name, value in _solution(asked).items()}


def _completions(asked: Asked) -> dict[str, Any]:
    return {
        "prompts": [asked.row["messages"]],
        "completions": [[{"role": "assistant", "content": asked.completion}]],
        **({"completion_ids": [asked.token_ids]} if asked.token_ids is not None else {}),
    }


def _named(*names: str) -> frozenset[str]:
    return frozenset(names)


_SOLUTIONS = ("solution_str", "predict_str", "model_output")
"""Parameter names that reward functions of verl use for the completion."""
_GOLD = ("data_source", "ground_truth", "extra_info")

SHAPES = (
    CallShape("(completion, row)", _named("completion", "row"), _named("completion", "row"), _text),
    CallShape("(sample, item)", _named("sample", "item"), _named("sample", "item"), _sample),
    CallShape("(row)", _named("row"), _named("row"), _whole_row),
    CallShape("(completion)", _named("completion"), _named("completion"), _text),
    *(
        CallShape(
            "(prompts, completions, completion_ids, …)",
            _named(known),
            _named("prompts", "completions", "completion_ids"),
            _completions,
            columns=True,
            batch=True,
        )
        for known in ("completions", "completion_ids")
    ),
    CallShape(
        "(messages, …)",
        _named("messages"),
        _named("messages", "original_messages"),
        _messages,
        columns=True,
    ),
    *(
        CallShape(
            f"(data_source, {text}, ground_truth, extra_info)",
            _named(text),
            _named(text, *_GOLD),
            _solution,
        )
        for text in _SOLUTIONS
    ),
    CallShape(
        "(data_sources, solution_strs, ground_truths, extra_infos)",
        _named("solution_strs"),
        _named("solution_strs", *(f"{name}s" for name in _GOLD)),
        _solutions,
        batch=True,
    ),
)
"""All call shapes, tried in this order.

A shape fits a function that has all parameters in ``known_by``, if the shape has a value for each of the
function's parameters without a default.
"""


def adapted(function: Callable[..., Any], name: str = "grade") -> Grade:
    """Return a function that calls the user's function and returns its score.

    ``name`` is the name of the user's function, for messages. Raises TypeError if the function's parameters
    fit no call shape. The message lists the shapes.
    """
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # written in C
        return lambda asked: number(_finished(function(asked.completion, asked.row)))
    shape = shape_of(parameters, name)
    if shape is None:
        return lambda asked: number(_finished(function(asked.completion, asked.row)))
    return functools.partial(_scored, function, parameters, shape, name)


def shape_of(parameters: Mapping[str, Parameter], name: str) -> CallShape | None:
    """Return the call shape that fits a function's parameters.

    Return None for a function with ``*args`` that fits no shape. It gets the completion and the row by
    position. Raises TypeError if the function cannot be called. The message has the function's ``name`` and
    lists the shapes.
    """
    named = {key: p for key, p in parameters.items() if p.kind not in _VARIABLE}
    required = {key for key, p in named.items() if p.default is Parameter.empty}
    for shape in SHAPES:
        if shape.known_by <= named.keys() and (shape.columns or required <= shape.names):
            return shape
    if any(p.kind is Parameter.VAR_POSITIONAL for p in parameters.values()) and _takes_two(
        parameters, required
    ):
        return None
    text = _text_parameter(parameters, required)
    if text is not None:
        return _text_and_fields(text, parameters, required)
    shapes = "; ".join(dict.fromkeys(shape.shown for shape in SHAPES))
    raise TypeError(
        f"{name}({', '.join(parameters)}) cannot be called as a grader: give it two parameters, which get"
        " completion and row, or a parameter completion and names of the row's fields, such as (completion,"
        f" answer), or one of these lists of parameters, where … are fields of the row: {shapes};"
        " every other parameter needs a default"
    )


_VARIABLE = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


def _takes_two(parameters: Mapping[str, Parameter], required: set[str]) -> bool:
    """Return whether a function with ``*args`` can be called with two values by position."""
    return required <= set(_ordered(parameters)[:2])


def _ordered(parameters: Mapping[str, Parameter]) -> list[str]:
    return [key for key, p in parameters.items() if p.kind in _POSITIONAL]


def _text_parameter(parameters: Mapping[str, Parameter], required: set[str]) -> str | None:
    """Return the name of the parameter that gets the completion, for a function that no call shape fits.

    Every other parameter without a default gets a field of the row, and there must be at least one. Return
    None if the names of the parameters belong to a call shape that the function does not fit.
    """
    ordered = _ordered(parameters)
    known = [key for key in ("completion", *_SOLUTIONS) if key in required]
    first = ordered[0] if ordered and ordered[0] in required and ordered[0] != "row" else None
    text = known[0] if known else first
    others = {*required, *({"row"} & parameters.keys())} - {text}
    if text is None or not others:
        return None
    if len(ordered) > 1 and others == {ordered[1]} and text == ordered[0]:
        return text
    return None if {text, *others} & _OF_OTHER_SHAPES else text


_OF_OTHER_SHAPES = (
    frozenset[str]().union(*(shape.names for shape in SHAPES)) - {"row", "completion"} - {*_SOLUTIONS, *_GOLD}
)


def _text_and_fields(text: str, parameters: Mapping[str, Parameter], required: set[str]) -> CallShape:
    """Return the call shape of a function whose parameter ``text`` gets the completion.

    ``required`` has the names of the parameters without a default. Each of them but ``text`` gets the row's
    field of its name. A parameter ``row`` gets the whole row. If the second parameter is the only such one,
    it also gets the whole row, but only as long as no row had a field of its name: otherwise a row that lacks
    the field would be scored as if it were the field.
    """
    others = {*required, *({"row"} & parameters.keys())} - {text}
    second = dict(enumerate(_ordered(parameters))).get(1)
    fields_seen: set[str] = set()

    def values(asked: Asked) -> dict[str, Any]:
        found = {key: asked.row[key] for key in others if key in asked.row}
        fields_seen.update(found)
        if "row" in others or (others == {second} and not fields_seen):
            found["row" if "row" in others else str(second)] = asked.row
        return {**found, text: asked.completion}

    return CallShape(f"({text}, …)", frozenset({text}), frozenset({text, *others}), values)


def _scored(
    function: Callable[..., Any],
    parameters: Mapping[str, Parameter],
    shape: CallShape,
    name: str,
    asked: Asked,
) -> float:
    """Call a user's function with the arguments of its call shape. Return its score.

    Raises LookupError if the row lacks a field that the function needs.
    """
    values = shape.values(asked)
    if shape.columns:
        columns = {key: [value] for key, value in asked.row.items()} if shape.batch else asked.row
        values = {**columns, **values}
    if shape.batch and "completions" in parameters and _is_of_texts(parameters["completions"]):
        values |= {"prompts": [_as_text(asked.row["messages"])], "completions": [asked.completion]}
    every = any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values())
    filled = values.keys() if shape.columns else shape.names
    given = {key: value for key, value in values.items() if key in filled and (every or key in parameters)}
    for key, p in parameters.items():
        if p.kind not in _VARIABLE and p.default is Parameter.empty and key not in given:
            raise LookupError(f"the row has no field {key}, which is a parameter of {name}")
    ordered = [given.pop(key) for key, p in parameters.items() if p.kind is Parameter.POSITIONAL_ONLY]
    result = _finished(function(*ordered, **given))
    return number(_only(result) if shape.batch else result)


def _is_of_texts(parameter: Parameter) -> bool:
    """Return whether a parameter is annotated as a list of texts.

    Such a function gets texts instead of messages, as in TRL.
    """
    annotation = parameter.annotation
    shown = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return shown.rpartition(".")[2].lower() in ("list[str]", "sequence[str]")


def _as_text(messages: list[dict[str, Any]]) -> str:
    """Return messages as text. A single message gives only its text, and several give a line ``role: text``
    each.
    """
    if len(messages) == 1:
        return str(messages[0].get("content"))
    return "\n".join(f"{message.get('role')}: {message.get('content')}" for message in messages)


def _finished(result: object) -> object:
    """Return a function's result. If it is awaitable, such as a coroutine, run it and return its result."""
    return _runner().run(_awaited(result)) if inspect.isawaitable(result) else result


@functools.cache
def _runner() -> Any:
    """Return the event loop of this process. Every call returns the same one.

    So users' code can reuse an object that is bound to an event loop, such as an HTTP client.
    """
    import asyncio  # imported late, because it takes longer than all other imports here

    return asyncio.Runner()


async def _awaited(result: Awaitable[object]) -> object:
    return await result


def _only(scores: object) -> object:
    """Return the score in a list of one score. A function that scores a list of rollouts returns such a list.

    Raises TypeError if ``scores`` is not a list of one item.
    """
    scores = _plain(scores)
    if not isinstance(scores, list | tuple) or len(scores) != 1:
        raise TypeError(
            f"the function returned {_described(scores)}, not a list of one score for each completion"
        )
    return scores[0]


def number(result: object) -> float:
    """Return the score in the result of a user's function. The result is one of:

    - a number
    - a mapping with a key ``score``
    - an object with an attribute ``score``
    - a list, tuple or array with exactly one of the above

    Raises TypeError for any other result. Raises ValueError if the score is not finite, or if a field of the
    result says that the score is not valid.
    """
    result = _plain(result)
    if isinstance(result, Mapping):
        if "score" not in result:
            raise TypeError("the function returned a dict without the key score")
        _refuse_invalid(result.get("is_score_valid"), result.get("reason"))
        return number(result["score"])
    if hasattr(result, "score"):
        _refuse_invalid(getattr(result, "is_score_valid", None), getattr(result, "reason", None))
        return number(result.score)
    if isinstance(result, list | tuple) and len(result) == 1:
        return number(result[0])
    if not isinstance(result, SupportsFloat):
        raise TypeError(f"the function returned {_described(result)}, not a number")
    value = float(result)
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError(f"the function returned {value}, not a finite number")
    return value


def _plain(result: object) -> object:
    """Convert an array or a scalar of numpy, torch or a similar library to a Python list or number."""
    convert = getattr(result, "tolist", None)
    return convert() if callable(convert) and not isinstance(result, type) else result


def _refuse_invalid(valid: object, reason: object) -> None:
    """Raise ValueError if ``valid`` is False. Then the result of a user's function has no valid score.

    ``valid`` is the field ``is_score_valid`` of the result, which results of the library eval-protocol have.
    None: the result has no such field.
    """
    if valid is False:
        raise ValueError(f"the result says that its score is not valid: {reason or 'no reason given'}")


def _described(result: object) -> str:
    kind = type(result).__name__
    return f"a {kind} of {len(result)}" if isinstance(result, list | tuple) else f"a {kind}"
