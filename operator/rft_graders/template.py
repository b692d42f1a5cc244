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
    """The text of a template is not valid, for example because of an open brace. The message says why."""


class NoValue(ValueError):
    """A template reads a part of the completion's JSON, such as {completion_json.name}, that does not exist,
    or the completion is not JSON.
    """


def parts(template: str) -> list[tuple[str, str | None]]:
    """Split a template into pairs: a literal text, and the name in braces that follows the text. Return
    [("Is ", "a"), (" 4?", None)] for "Is {a} 4?". A path after the name is included.

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
    """Return whether ``field``, the text in a template's braces, is a name, with or without a path after it.

    The names ``prompt``, ``completion`` and ``messages`` must have no path.
    """
    match = _PATH.fullmatch(field)
    return match is not None and not (match[2] and match[1] in ("prompt", "completion", "messages"))


def row_fields(template: str) -> list[str]:
    """Return the names of the dataset row's fields that a template reads, each once, in order.

    Raises TemplateProblem for a template that is not valid.
    """
    names = [root_of(field) for _, field in parts(template) if field is not None]
    return list(dict.fromkeys(name for name in names if name not in _OF_THE_ROLLOUT))


def root_of(field: str) -> str:
    """Return the name at the beginning of ``field``, the text in a template's braces, without the path after
    the name: person for person.names[0].
    """
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
    """Return the part of ``value`` that the path in ``field`` selects. ``field`` is the text in a template's
    braces, such as person.names[0]. Without a path, return ``value``.

    Raises LookupError or TypeError if the value has no such part, or if the part is null.
    """
    for step in _STEP.finditer(field, len(root_of(field))):
        value = value[step[1]] if step[1] is not None else value[int(step[2])]
        if value is None:
            raise LookupError(field)
    return value


def conversation(messages: list[Mapping[str, Any]]) -> str:
    """Return the messages of a prompt as one text. A single message gives its content. Several messages give
    ``role: content`` each, with a blank line between them.
    """
    if len(messages) == 1:
        return str(messages[0]["content"])
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
