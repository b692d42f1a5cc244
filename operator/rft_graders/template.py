"""Fills in templates: the prompts of judges, and the texts that graders compare.

A template has names in braces: {prompt}, {completion}, or the name of a row's field. A path after a name
reads a part of the value: {person.names[0]}. {completion_json.name} reads a part of the completion as JSON.
"""

import json
import re
from collections.abc import Mapping
from string import Formatter
from typing import Any

_OF_THE_ROLLOUT = ("prompt", "completion", "completion_json", "messages")
_PATH = re.compile(r"([^.\[\]{}]+)((?:\.[^.\[\]{}]+|\[[0-9]{1,6}\])*)")
_STEP = re.compile(r"\.([^.\[\]{}]+)|\[([0-9]+)\]")


class TemplateProblem(ValueError):
    """A template cannot be filled in. The message says why."""


class NoValue(ValueError):
    """The completion does not have the part that a template reads, for example because it is not JSON."""


def parts(template: str) -> list[tuple[str, str | None]]:
    """Split a template into pairs of a literal text and the field after it. If no field follows, the field is
    None.

    Raises TemplateProblem for a template that is not valid.
    """
    try:
        found = list(Formatter().parse(template))
    except ValueError as error:
        raise TemplateProblem(f"{error}; write {{{{ and }}}} for literal braces") from error
    for _, field, specification, conversion in found:
        if field is not None and (specification or conversion or not _is_readable(field)):
            raise TemplateProblem(
                f"{{{field}}}: only names of row fields, prompt, completion and completion_json are allowed"
                " in braces; a path such as .name or [0] may follow; write {{ and }} for literal braces"
            )
    return [(literal, field) for literal, field, _, _ in found]


def _is_readable(field: str) -> bool:
    """Return whether ``field``, the text in braces, is a name, with or without a path after it.

    The names ``prompt``, ``completion`` and ``messages`` must have no path.
    """
    match = _PATH.fullmatch(field)
    return match is not None and not (match[2] and match[1] in ("prompt", "completion", "messages"))


def row_fields(template: str) -> list[str]:
    """Return the names of the row's fields in a template, each once, in order.

    Raises TemplateProblem for a template that is not valid.
    """
    names = [root_of(field) for _, field in parts(template) if field is not None]
    return list(dict.fromkeys(name for name in names if name not in _OF_THE_ROLLOUT))


def root_of(field: str) -> str:
    """Return the name at the beginning of a field in braces, without the path after it."""
    match = _PATH.fullmatch(field)
    assert match is not None
    return match[1]


def filled(template: str, completion: str, row: Mapping[str, Any]) -> str:
    """Return the template, with each name in braces replaced by its value. Braces in a value are kept.

    Raises:
        ValueError: the row does not have a field that the template names.
        NoValue: the template reads ``completion_json``, and the completion is not JSON or lacks this part.
        TemplateProblem: the template is not valid.
    """
    text = []
    for literal, field in parts(template):
        text.append(literal)
        if field is not None:
            text.append(_as_text(_value(field, completion, row)))
    return "".join(text)


def _value(field: str, completion: str, row: Mapping[str, Any]) -> Any:
    root = root_of(field)
    if root == "completion":
        return completion
    if root == "completion_json":
        try:
            return _at(json.loads(completion), field)
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise NoValue(f"the completion has no {field}") from error
    if root == "prompt":
        return conversation(row["messages"])
    try:
        found = _at(row[root], field)
    except (LookupError, TypeError):
        found = None
    if found is None:
        raise ValueError(f"the row has no field {field}")
    return found


def _at(value: Any, field: str) -> Any:
    """Return the part of a value that the path of a field selects.

    Raises LookupError or TypeError if the value has no such part.
    """
    for step in _STEP.finditer(field, len(root_of(field))):
        value = value[step[1]] if step[1] is not None else value[int(step[2])]
        if value is None:
            raise LookupError(field)
    return value


def conversation(messages: list[Mapping[str, Any]]) -> str:
    """Return a prompt as text: the content of the only message, or ``role: content`` for each message."""
    if len(messages) == 1:
        return str(messages[0]["content"])
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
