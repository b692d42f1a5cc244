"""Adds the validation rules in CEL to the schema of the CRD, as ``x-kubernetes-validations``.

These limits of the schema become rules in CEL too:

- a ``pattern``: the API server would show its regular expression to the user. For a rule, it shows our words.
- a limit with a fraction, such as 0.5: the API server would read it as a whole number.
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
    """Yield all rules in CEL.

    First come those of ``rules.RULES``, then those about changes after the start of a run, then the one for
    the name, and last those for patterns and limits of single fields.
    """
    for rule in rules.RULES:
        yield from rule.cel
    yield from immutability.CEL
    yield NAME_RULE
    spec = structural(RFTJobSpec, defaults=True)
    yield from form_texts(spec, "spec")
    yield from bound_texts(spec, "spec")


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


def nodes(schema: Schema, where: str) -> Iterator[tuple[str, Schema]]:
    """Yield a schema and all schemas inside it, each with its path. ``where`` is the path of ``schema``."""
    yield where, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{where}.{name}")
    for key, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if isinstance(schema.get(key), dict):
            yield from nodes(schema[key], f"{where}{mark}")


def place(schema: Schema, texts: Iterable[Cel]) -> None:
    """Add each rule in CEL to the schema of the object or field at the rule's path.

    Raises:
        KeyError: the schema does not have the path of a rule.
    """
    for text in texts:
        entry = {"rule": text.expression, "message": text.message}
        node_at(schema, text.where).setdefault(KEY, []).append(entry)


def _has(form: Form, text: str = "self") -> str:
    """Return a CEL expression that is true if the value of ``text`` matches the regular expression of
    ``form``. ``text`` is a CEL expression too.
    """
    pattern = form.pattern.replace("\\", "\\\\").replace("'", "\\'")
    return f"{text}.matches('{pattern}')"


NAME_RULE = Cel(
    "",
    f"!has(self.metadata) || !has(self.metadata.name) || {_has(LABEL, 'self.metadata.name')}",
    f"metadata.name must be {LABEL.words}",
)
"""The rule for the name of an RFTJob: which characters it may have. It is a rule of the whole object, because
the schema of ``metadata`` cannot have rules."""


def form_texts(schema: Schema, where: str) -> Iterator[Cel]:
    """Yield a rule in CEL for each ``pattern`` in ``schema``. The message of the rule says in words what the
    pattern allows. ``where`` is the path of ``schema`` in the CRD.

    Raises:
        KeyError: a pattern is not in ``rft_api.forms.FORMS``, which has these words.
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
    """Yield a rule in CEL for each number in ``schema`` whose minimum or maximum is not a whole number.

    Without the rule, the API server would accept 0 for ``minimum: 0.5``: if the manifest has a whole number,
    the API server reads the limit as 0. ``where`` is the path of ``schema`` in the CRD.
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
    """Remove patterns and limits from a schema if the rules of ``form_texts`` and ``bound_texts`` check them
    instead.
    """
    for _, node in nodes(schema, ""):
        node.pop("pattern", None)
        if _has_fraction(node):
            for bound in _SIGNS:
                node.pop(bound, None)
                node.pop(f"exclusive{bound.capitalize()}", None)
