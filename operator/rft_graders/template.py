"""The judge's instruction, a template with {prompt}, {completion} and row fields, but no format specs."""

import json
from collections.abc import Mapping
from string import Formatter
from typing import Any

_OF_THE_ROLLOUT = ("prompt", "completion", "messages")


class TemplateProblem(ValueError):
    """A template that cannot be filled in; the message says why."""


def parts(template: str) -> list[tuple[str, str | None]]:
    """Split a template into (literal text, field after it or None). Raises TemplateProblem."""
    try:
        found = list(Formatter().parse(template))
    except ValueError as error:
        raise TemplateProblem(f"{error}; write {{{{ and }}}} for braces that are meant as such") from error
    for _, field, specification, conversion in found:
        if field is not None and (specification or conversion or not field or set(field) & set(".[]{}")):
            raise TemplateProblem(
                f"{{{field}}}: only names of row fields, prompt and completion stand in braces;"
                " write {{ and }} for braces that are meant as such"
            )
    return [(literal, field) for literal, field, _, _ in found]


def row_fields(template: str) -> list[str]:
    """Return the row fields in a template, each once, in order. Raises TemplateProblem."""
    names = [field for _, field in parts(template) if field is not None and field not in _OF_THE_ROLLOUT]
    return list(dict.fromkeys(names))


def filled(template: str, completion: str, row: Mapping[str, Any]) -> str:
    """Return the template filled in. Inserted text is not expanded, so braces in a completion stay.

    Raises ValueError for a field that the row lacks, TemplateProblem.
    """
    values: dict[str, Any] = {**row, "prompt": conversation(row["messages"]), "completion": completion}
    text = []
    for literal, field in parts(template):
        text.append(literal)
        if field is not None:
            if values.get(field) is None:
                raise ValueError(f"field {field} is missing")
            text.append(_as_text(values[field]))
    return "".join(text)


def conversation(messages: list[Mapping[str, Any]]) -> str:
    """Return a prompt as text: the content of a single message, else each message with its role before it."""
    if len(messages) == 1:
        return str(messages[0]["content"])
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
