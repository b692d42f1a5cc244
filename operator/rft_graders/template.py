"""The prompt template of a judge. In braces it has {prompt}, {completion} or the name of a row's field."""

import json
from collections.abc import Mapping
from string import Formatter
from typing import Any

_OF_THE_ROLLOUT = ("prompt", "completion", "messages")


class TemplateProblem(ValueError):
    """The prompt template of a judge cannot be filled in. The message says why."""


def parts(template: str) -> list[tuple[str, str | None]]:
    """Split a template into pairs of literal text and the field after it, which may be None.

    Raises TemplateProblem for a template that is not valid.
    """
    try:
        found = list(Formatter().parse(template))
    except ValueError as error:
        raise TemplateProblem(f"{error}; write {{{{ and }}}} for literal braces") from error
    for _, field, specification, conversion in found:
        if field is not None and (specification or conversion or not field or set(field) & set(".[]{}")):
            raise TemplateProblem(
                f"{{{field}}}: only names of row fields, prompt and completion are allowed in braces;"
                " write {{ and }} for literal braces"
            )
    return [(literal, field) for literal, field, _, _ in found]


def row_fields(template: str) -> list[str]:
    """Return the names of the row's fields in a template, each once, in order.

    Raises TemplateProblem for a template that is not valid.
    """
    names = [field for _, field in parts(template) if field is not None and field not in _OF_THE_ROLLOUT]
    return list(dict.fromkeys(names))


def filled(template: str, completion: str, row: Mapping[str, Any]) -> str:
    """Return the template with the values of its fields. Braces in these values are not replaced.

    Raises ValueError for a field that the row lacks, TemplateProblem for a template that is not valid.
    """
    values: dict[str, Any] = {**row, "prompt": conversation(row["messages"]), "completion": completion}
    text = []
    for literal, field in parts(template):
        text.append(literal)
        if field is not None:
            if values.get(field) is None:
                raise ValueError(f"the row has no field {field}")
            text.append(_as_text(values[field]))
    return "".join(text)


def conversation(messages: list[Mapping[str, Any]]) -> str:
    """Return a prompt as text: the content of the only message, or ``role: content`` for each message."""
    if len(messages) == 1:
        return str(messages[0]["content"])
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
