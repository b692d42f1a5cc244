"""Adds the validation rules in CEL to the CRD's schema, as ``x-kubernetes-validations``."""

from collections.abc import Iterable, Iterator
from typing import Any

from rft_api import immutability, rules
from rft_api.cel import Cel

Schema = dict[str, Any]

KEY = "x-kubernetes-validations"


def all_texts() -> Iterator[Cel]:
    """Yield all rules in CEL, in the order of the rules in Python."""
    for rule in rules.RULES:
        yield from rule.cel
    yield from immutability.CEL


def node_at(schema: Schema, where: str) -> Schema:
    """Return the schema at a path such as ``spec.graders[].python``. An empty path means the whole schema.

    Raises:
        KeyError: the schema does not have this path.
    """
    for part in where.split(".") if where else ():
        name = part.removesuffix("[]")
        schema = schema["properties"][name]
        if name != part:
            schema = schema["items"]
    return schema


def place(schema: Schema, texts: Iterable[Cel]) -> None:
    """Add each rule in CEL to the part of the schema at the rule's path.

    Raises:
        KeyError: the schema does not have the path of a rule.
    """
    for text in texts:
        entry = {"rule": text.expression, "message": text.message}
        node_at(schema, text.where).setdefault(KEY, []).append(entry)
