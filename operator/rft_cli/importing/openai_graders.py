"""Converts graders of OpenAI to graders of an RFTJob.

The kinds are string_check, text_similarity, score_model, label_model, python and multi.
"""

import ast
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from rft_api.foreign import OPENAI_GRADER_FIELDS, OPENAI_GRADERS, OPENAI_METRICS
from rft_api.meant import fold
from rft_cli.importing.result import Draft, ImportProblem, Options
from rft_cli.importing.templates import ours
from rft_graders.formula import FUNCTIONS, FormulaProblem, parsed, variable

Body = Mapping[str, Any]
JUDGE_SECRET = {"name": "judge", "key": "api-key"}
JUDGE_SECONDS = 120
"""Time limit for one score of a judge (a model that scores completions), in seconds. The default of
10 seconds may be too short for a reasoning model."""
PYTHON_SECONDS = 120
"""Time limit for one score of a python grader, in seconds. OpenAI has the same limit."""
_OPERATIONS: dict[str, dict[str, Any]] = {
    "eq": {},
    "ne": {"operation": "notEquals"},
    "neq": {"operation": "notEquals"},
    "like": {"operation": "contains"},
    "ilike": {"operation": "contains", "ignoreCase": True},
}
_METRICS = {each.theirs: each for each in OPENAI_METRICS}
KINDS = tuple(each.theirs for each in OPENAI_GRADERS)


def is_grader(body: object) -> bool:
    """Return whether a JSON value is an object whose ``type`` is a kind of OpenAI grader."""
    return isinstance(body, dict) and body.get("type") in KINDS


def add(draft: Draft, body: Body, options: Options) -> None:
    """Convert ``body``, a grader of OpenAI, to graders of an RFTJob, and add them to the draft of the RFTJob.

    A grader of kind multi becomes several graders. Any other kind becomes one.

    Raises:
        ImportProblem: if the grader cannot be converted. The message has the grader's name.
    """
    kind = str(body.get("type"))
    if kind == "multi":
        _add_multi(draft, body, options)
    else:
        _add_one(draft, body, str(body.get("name") or kind), options, weight=None)


def _add_one(draft: Draft, body: Body, name: str, options: Options, weight: int | None) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise ImportProblem(f"grader {name} is {json.dumps(body)}, not an object")
    kind = str(body.get("type"))
    make = _MAKERS.get(kind)
    if make is None:
        entry = next((each for each in OPENAI_GRADERS if each.theirs == kind), None)
        known = (
            f"write it as {entry.ours}: {entry.note}" if entry else f"known are {', '.join(_MAKERS)}, multi"
        )
        raise ImportProblem(f"grader {name}: type {kind!r} cannot be imported; {known}")
    made: dict[str, Any] = {"name": draft.unique_name(name)}
    if weight is not None:
        made["weight"] = weight
    try:
        made |= make(draft, body, made["name"], options)
    except ImportProblem as error:
        raise ImportProblem(f"grader {name}: {error}") from error
    except (TypeError, KeyError, AttributeError, ValueError, OverflowError) as error:
        raise ImportProblem(
            f"grader {name}: a field of {kind} is missing or has a wrong value: {error}"
        ) from error
    for field in ("pass_threshold", "image_tag"):
        if body.get(field) is not None:
            _say(draft, name, field, body[field])
    draft.graders.append(made)
    return made


def _say(draft: Draft, name: str, field: str, value: object) -> None:
    """Add a note to the draft that the field ``field`` of the OpenAI grader ``name`` is left out, and why."""
    entry = next((each for each in OPENAI_GRADER_FIELDS if fold(each.theirs) == fold(field)), None)
    done = f"no counterpart: {entry.note}" if entry is not None else "no counterpart, and left out"
    draft.note(f"{name}.{field}", value, done)


def _string_check(_draft: Draft, body: Body, _name: str, _options: Options) -> dict[str, Any]:
    operation = body["operation"]
    if operation not in _OPERATIONS:
        raise ImportProblem(f"operation {operation!r} is not one of {', '.join(_OPERATIONS)}")
    check = {**_OPERATIONS[operation], "input": ours(body["input"]), "reference": ours(body["reference"])}
    return {"stringCheck": {key: text for key, text in check.items() if text != _DEFAULTS.get(key)}}


_DEFAULTS = {"input": "{completion}"}


def _text_similarity(draft: Draft, body: Body, name: str, _options: Options) -> dict[str, Any]:
    metric = _METRICS.get(body["evaluation_metric"])
    if metric is None:
        raise ImportProblem(
            f"evaluation_metric {body['evaluation_metric']!r} is not one of {', '.join(_METRICS)}"
        )
    if not metric.ours:
        draft.note(f"{name}.evaluation_metric", metric.theirs, metric.note)
    settings: dict[str, Any] = {"metric": metric.ours or "rougeL"}
    reference = ours(body["reference"])
    field = re.fullmatch(r"\{([^.\[\]{}]+)\}", reference)
    if field and field[1] != "completion":
        settings["field"] = field[1]
    else:
        settings["reference"] = reference
    if (given := ours(body["input"])) != "{completion}":
        settings["input"] = given
    return {"textSimilarity": settings}


def _judge(draft: Draft, body: Body, name: str, options: Options, asked: str) -> dict[str, Any]:
    """Convert an OpenAI grader that asks a model for a score or a label. Return the settings of an RFTJob's
    ``model`` grader.

    ``asked``: the last paragraph of the prompt, which tells the judge how to reply.
    """
    if options.judge_model is None:
        draft.note(
            f"{name}.model", body["model"], f"requests go to {options.judge_url}; --judge-url changes this"
        )
    settings: dict[str, Any] = {
        "url": options.judge_url,
        "model": options.judge_model or body["model"],
        "secretRef": dict(JUDGE_SECRET),
        "prompt": f"{_conversation(body['input'])}\n\n{asked}",
    }
    for field, value in (body.get("sampling_params") or {}).items():
        if fold(field) in ("maxcompletionstokens", "maxcompletiontokens", "maxtokens"):
            settings["maxTokens"] = min(int(value), 32768)
        elif value is not None:
            _say(draft, name, field, value)
    return settings


def _conversation(messages: Any) -> str:
    """Convert the field ``input`` of an OpenAI grader to a prompt template of an RFTJob.

    ``messages``: a text or a list of messages. Their texts are joined with blank lines. Raises ImportProblem
    if a message has images or audio.
    """
    texts = []
    for message in [messages] if isinstance(messages, str) else messages:
        content = message if isinstance(message, str) else message["content"]
        parts = content if isinstance(content, list) else [content]
        for part in parts:
            text = part.get("text") if isinstance(part, dict) else part
            if not isinstance(text, str):
                raise ImportProblem("input has images or audio, and a judge gets only text")
            texts.append(ours(text))
    return "\n\n".join(texts)


def _score_model(draft: Draft, body: Body, name: str, options: Options) -> dict[str, Any]:
    low, high = body.get("range") or (0, 1)
    asked = f'Reply with {{{{"score": <number from {low:g} to {high:g}>}}}} and nothing else.'
    return {
        "scale": {"min": low, "max": high, "clip": True},
        "onError": "zero",
        "timeoutSeconds": JUDGE_SECONDS,
        "model": _judge(draft, body, name, options, asked),
    }


def _label_model(draft: Draft, body: Body, name: str, options: Options) -> dict[str, Any]:
    labels, passing = list(body["labels"]), set(body["passing_labels"])
    if unknown := sorted(passing - set(labels)):
        raise ImportProblem(f"passing_labels {', '.join(unknown)} are not in labels {', '.join(labels)}")
    asked = f"Reply with one of these labels and nothing else: {', '.join(labels)}"
    settings = _judge(draft, body, name, options, asked.replace("{", "{{").replace("}", "}}"))
    scores = {each: 1 if each in passing else 0 for each in labels}
    return {"onError": "zero", "timeoutSeconds": JUDGE_SECONDS, "model": {**settings, "labels": scores}}


def _python(draft: Draft, body: Body, name: str, _options: Options) -> dict[str, Any]:
    source = body["source"]
    file = f"{name}.py".replace("-", "_")
    draft.files[file] = source if source.endswith("\n") else f"{source}\n"
    return {"timeoutSeconds": PYTHON_SECONDS, "python": {"file": file}}


_MAKERS: dict[str, Callable[[Draft, Body, str, Options], dict[str, Any]]] = {
    "string_check": _string_check,
    "text_similarity": _text_similarity,
    "score_model": _score_model,
    "label_model": _label_model,
    "python": _python,
}


def _add_multi(draft: Draft, body: Body, options: Options) -> None:
    """Convert ``body``, an OpenAI grader of kind multi, and add the graders to the draft: one with weight 0
    for each grader in it, and a formula grader, which calculates the reward from their scores.
    """
    parts = body.get("graders")
    if not isinstance(parts, dict) or not parts:
        raise ImportProblem("grader multi: graders is not an object with a grader under each key")
    made = {key: _add_one(draft, part, key, options, weight=0) for key, part in parts.items()}
    expression = str(body.get("calculate_output", ""))
    try:
        tree = parsed(expression)
    except FormulaProblem as error:
        raise ImportProblem(f"grader multi: calculate_output: {error}") from error
    unknown = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} - {*made, *FUNCTIONS}
    if unknown:
        raise ImportProblem(
            f"grader multi: calculate_output names {', '.join(sorted(unknown))}; graders has"
            f" {', '.join(made)}"
        )
    written = re.sub(r"[A-Za-z_]\w*", lambda m: _raw(made[m[0]]) if m[0] in made else m[0], expression)
    grader: dict[str, Any] = {
        "name": draft.unique_name(str(body.get("name") or "reward")),
        "formula": {"expression": written},
    }
    low, high = _bounds(parsed(written))
    if low < 0 or high > 1:
        unbounded = low == high or max(abs(low), abs(high)) > 1e6
        if unbounded:
            low, high = 0.0, 1.0
        grader["scale"] = {"min": _plain(low), "max": _plain(high), "clip": True}
        done = (
            "the range of its values is not known, so a value below 0 counts as 0 and one above 1 as 1; if"
            " there are such values, set the scale of this grader"
            if unbounded
            else f"its values may be from {low:g} to {high:g}, so the import set the grader's scale, which"
            " maps this range onto 0 to 1 and changes no advantage"
        )
        draft.note("calculate_output", expression, done)
    draft.graders.append(grader)


def _plain(value: float) -> float:
    return int(value) if value == int(value) else round(value, 6)


def _raw(grader: Mapping[str, Any]) -> str:
    """Return the term that stands for the score of ``grader`` in a formula, such as ``(1 + 4 * name)``.

    In an RFTJob, a score is from 0 to 1. The term maps the score to the range that it has at OpenAI.
    """
    name = variable(str(grader["name"]))
    scale = grader.get("scale") or {"min": 0, "max": 1}
    low, width = scale["min"], scale["max"] - scale["min"]
    if (low, width) == (0, 1):
        return name
    return f"({low:g} + {width:g} * {name})" if low else f"({width:g} * {name})"


def _bounds(node: ast.expr) -> tuple[float, float]:
    """Return a lower and an upper bound for the values of a formula whose variables are from 0 to 1.

    ``node``: the formula's syntax tree. A variable that occurs twice counts as two variables, so the bounds
    of ``a - a`` are -1 and 1. Return minus and plus infinity if no bounds can be computed.
    """
    unknown = (-math.inf, math.inf)
    try:
        bounds = _computed_bounds(node)
    except (ValueError, OverflowError, ZeroDivisionError):
        return unknown
    # Unknown bounds of one part, multiplied by 0 or divided by each other, are not a number.
    return unknown if any(math.isnan(bound) for bound in bounds) else bounds


def _computed_bounds(node: ast.expr) -> tuple[float, float]:
    """Compute a lower and an upper bound for the values of a formula from the bounds of its operands.

    ``node``: the formula's syntax tree. Raises ValueError, OverflowError or ZeroDivisionError if there are no
    such bounds, for example if a divisor may be 0.
    """
    if isinstance(node, ast.Constant):
        return (float(node.value), float(node.value))  # type: ignore[arg-type]
    if isinstance(node, ast.Name):
        return (0.0, 1.0)
    if isinstance(node, ast.UnaryOp):
        low, high = _bounds(node.operand)
        return (-high, -low) if isinstance(node.op, ast.USub) else (low, high)
    if isinstance(node, ast.BinOp):
        return _of_operator(node.op, _bounds(node.left), _bounds(node.right))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return _of_call(node.func.id, [_bounds(each) for each in node.args])
    raise ValueError("not a part of a formula")


def _of_operator(
    op: ast.operator, left: tuple[float, float], right: tuple[float, float]
) -> tuple[float, float]:
    if isinstance(op, ast.Add):
        return (left[0] + right[0], left[1] + right[1])
    if isinstance(op, ast.Sub):
        return (left[0] - right[1], left[1] - right[0])
    if isinstance(op, ast.Div) and right[0] <= 0 <= right[1]:
        raise ZeroDivisionError
    if isinstance(op, ast.Pow) and left[0] < 0:
        raise ValueError("the base may be negative")
    calculate: Callable[[float, float], float] = {
        ast.Mult: lambda a, b: a * b,
        ast.Div: lambda a, b: a / b,
        ast.Pow: lambda a, b: a**b,
    }[type(op)]
    corners = [calculate(a, b) for a in left for b in right]
    return (min(corners), max(corners))


def _of_call(name: str, given: list[tuple[float, float]]) -> tuple[float, float]:
    lows, highs = [low for low, _ in given], [high for _, high in given]
    if name in ("min", "max"):
        function = min if name == "min" else max
        return (function(lows), function(highs))
    low, high = given[0]
    if name == "abs":
        ends = (abs(low), abs(high))
        return (0.0 if low <= 0 <= high else min(ends), max(ends))
    function_1 = FUNCTIONS[name][0]
    return (float(function_1(low)), float(function_1(high)))


def response_schema(body: object) -> str | None:
    """Return, as JSON text, the schema in ``body``, the value of an OpenAI job's field ``response_format``.

    Return None if ``body`` has no schema.
    """
    if not isinstance(body, dict) or body.get("type") != "json_schema":
        return None
    inner = body.get("json_schema", body)
    schema = inner.get("schema") if isinstance(inner, dict) else None
    return json.dumps(schema) if isinstance(schema, dict) else None
