"""Adds the validation rules in CEL to the CRD's schema, as ``x-kubernetes-validations``.

Forms of texts are rules in CEL too. For ``pattern`` the API server would show the regular expression; for a
rule it shows our words.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from rft_api import immutability, rules
from rft_api.cel import Cel
from rft_api.forms import FORMS, LABEL, Form
from rft_api.job import RFTJobSpec
from rft_api.schema import structural

Schema = dict[str, Any]

KEY = "x-kubernetes-validations"


def all_texts() -> Iterator[Cel]:
    """Yield all rules in CEL: those of the rules in Python in their order, and the forms of texts."""
    for rule in rules.RULES:
        yield from rule.cel
    yield from immutability.CEL
    yield NAME_RULE
    yield from form_texts(structural(RFTJobSpec, defaults=True), "spec")


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


def _has(form: Form, text: str = "self") -> str:
    """Return the expression in CEL that the text ``text`` has a form."""
    pattern = form.pattern.replace("\\", "\\\\").replace("'", "\\'")
    return f"{text}.matches('{pattern}')"


NAME_RULE = Cel(
    "",
    f"!has(self.metadata) || !has(self.metadata.name) || {_has(LABEL, 'self.metadata.name')}",
    f"metadata.name must be {LABEL.words}",
)
"""The form of an RFTJob's name. It is a rule of the whole object, because the schema of ``metadata`` cannot
have rules."""


def form_texts(schema: Schema, where: str) -> Iterator[Cel]:
    """Yield a rule in CEL for each ``pattern`` in the schema at the path ``where``.

    Raises:
        KeyError: if a pattern is not in ``FORMS``.
    """
    if "pattern" in schema:
        form = FORMS[schema["pattern"]]
        yield Cel(where, _has(form), f"must be {form.words}")
    for name, child in schema.get("properties", {}).items():
        yield from form_texts(child, f"{where}.{name}")
    if "items" in schema:
        yield from form_texts(schema["items"], f"{where}[]")


def drop_patterns(schema: Schema) -> None:
    """Remove every ``pattern`` from a schema that has the rules of ``form_texts`` in their place."""
    schema.pop("pattern", None)
    for child in (*schema.get("properties", {}).values(), schema.get("items")):
        if child is not None:
            drop_patterns(child)
