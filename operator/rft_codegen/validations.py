"""Adds validation rules in CEL to the schema of the CRD of RFTJob, as ``x-kubernetes-validations``.

Two kinds of limits in the schema are also replaced by rules in CEL:

- a ``pattern``, because the API server's message would show the regular expression. A rule has a message in
  words.
- a limit with a fraction, such as 0.5, because the API server would read it as a whole number.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from rft_api import immutability, rules
from rft_api.cel import Cel
from rft_api.forms import FORMS, LABEL, Form
from rft_api.job import RFTJobSpec
from rft_api.problems import bounds_text
from rft_api.schema import structural

Schema = dict[str, Any]

KEY = "x-kubernetes-validations"


def all_texts() -> Iterator[Cel]:
    """Yield all validation rules of the CRD in CEL, in this order:

    1. the rules about several fields, from ``rules.RULES``
    2. the rules about changes after the start of a run
    3. the rule for the name of the RFTJob
    4. the rules that replace patterns and limits of single fields
    """
    for rule in rules.RULES:
        yield from rule.cel
    yield from immutability.CEL
    yield NAME_RULE
    spec = structural(RFTJobSpec, defaults=True)
    yield from form_texts(spec, "spec")
    yield from bound_texts(spec, "spec")


def node_at(schema: Schema, where: str) -> Schema:
    """Return the part of ``schema`` for the field at the path ``where``, such as ``spec.graders[].python``.
    With an empty path, return ``schema``.

    Raises:
        KeyError: the schema does not have this path.
    """
    for part in where.split(".") if where else ():
        name = part.removesuffix("[]")
        schema = schema["properties"][name]
        if name != part:
            schema = schema["items"]
    return schema


def nodes(schema: Schema, where: str) -> Iterator[tuple[str, Schema]]:
    """Yield pairs of path and schema: ``schema`` itself, and the schemas of all fields, list items and map
    values inside it. ``where`` is the path of ``schema``.
    """
    yield where, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{where}.{name}")
    for key, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if isinstance(schema.get(key), dict):
            yield from nodes(schema[key], f"{where}{mark}")


def place(schema: Schema, texts: Iterable[Cel]) -> None:
    """Add each rule in CEL to ``schema``, in the ``x-kubernetes-validations`` of the field at the rule's
    path.

    Raises:
        KeyError: the schema does not have the path of a rule.
    """
    for text in texts:
        entry = {"rule": text.expression, "message": text.message}
        node_at(schema, text.where).setdefault(KEY, []).append(entry)


def _has(form: Form, text: str = "self") -> str:
    """Return a CEL expression that checks whether a text matches the regular expression of ``form``. ``text``
    is the CEL expression for this text.
    """
    pattern = form.pattern.replace("\\", "\\\\").replace("'", "\\'")
    return f"{text}.matches('{pattern}')"


NAME_RULE = Cel(
    "",
    f"!has(self.metadata) || !has(self.metadata.name) || {_has(LABEL, 'self.metadata.name')}",
    f"metadata.name must be {LABEL.words}",
)
"""The validation rule for the characters in an RFTJob's name. It belongs to the whole object, because the
schema of ``metadata`` cannot have rules."""


def form_texts(schema: Schema, where: str) -> Iterator[Cel]:
    """Yield a validation rule in CEL for each ``pattern`` in ``schema``. The message of the rule says in
    words what the pattern allows. ``where`` is the path of ``schema`` in the CRD.

    Raises:
        KeyError: ``rft_api.forms.FORMS`` has no words for a pattern.
    """
    for path, node in nodes(schema, where):
        if "pattern" in node:
            form = FORMS[node["pattern"]]
            yield Cel(path, _has(form), f"must be {form.words}")


_SIGNS = {"minimum": (">=", ">"), "maximum": ("<=", "<")}
_NAMES = {"minimum": ("ge", "gt"), "maximum": ("le", "lt")}


def _exclusive(schema: Schema, bound: str) -> bool:
    return bool(schema.get(f"exclusive{bound.capitalize()}"))


def _has_fraction(schema: Schema) -> bool:
    return any(not float(schema.get(bound, 0)).is_integer() for bound in _SIGNS)


def bound_texts(schema: Schema, where: str) -> Iterator[Cel]:
    """Yield a validation rule in CEL for each number in ``schema`` whose minimum or maximum is not a whole
    number. ``where`` is the path of ``schema`` in the CRD.

    Without the rule, the API server would accept the whole number 0 for ``minimum: 0.5``, because it compares
    whole numbers with the limit's whole part, 0.
    """
    for path, node in nodes(schema, where):
        if _has_fraction(node):
            bounds = [bound for bound in _SIGNS if bound in node]
            parts = [
                f"self {_SIGNS[bound][_exclusive(node, bound)]} {float(node[bound])}" for bound in bounds
            ]
            words = bounds_text({_NAMES[bound][_exclusive(node, bound)]: node[bound] for bound in bounds})
            yield Cel(path, " && ".join(parts), f"must be {words}")


def drop_replaced(schema: Schema) -> None:
    """Remove those patterns and limits from ``schema``, in place, that validation rules in CEL check instead:
    all patterns, and limits with a fraction.
    """
    for _, node in nodes(schema, ""):
        node.pop("pattern", None)
        if _has_fraction(node):
            for bound in _SIGNS:
                node.pop(bound, None)
                node.pop(f"exclusive{bound.capitalize()}", None)
