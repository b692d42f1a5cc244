"""Builds validation rules in CEL, the expression language in which the API server checks an RFTJob.

For each rule in CEL, a Python function in the same module makes the same check. Only the CEL of Kubernetes
1.25 is used: ``rft_codegen.cel_lint`` refuses anything newer.
"""

from collections.abc import Sequence
from typing import NamedTuple


def words(text: str) -> frozenset[str]:
    """Split a text at whitespace into a set of words."""
    return frozenset(text.split())


_RESERVED = words(
    "true false null in as break const continue else for function if import let loop package namespace"
    " return var void while"
)


class Cel(NamedTuple):
    """A rule in CEL: one entry of ``x-kubernetes-validations`` in the CRD."""

    where: str
    """Path of the schema that has the rule, such as ``spec`` or ``spec.graders[]``. Empty for the whole
    RFTJob."""
    expression: str
    """The CEL expression. In the expression ``self`` is the value at the path ``where``."""
    message: str
    """The message in one line: the field, what is allowed, and the fix. The API server writes the path
    ``where`` in front of the message.
    """


def escape(field: str) -> str:
    """Return the name of a field in the escaped form that CEL expressions need.

    For example, the reserved word ``function`` becomes ``__function__``.
    """
    if field in _RESERVED:
        return f"__{field}__"
    for character, word in (("__", "underscores"), (".", "dot"), ("-", "dash"), ("/", "slash")):
        field = field.replace(character, f"__{word}__")
    return field


def exactly_one_of(where: str, fields: Sequence[str]) -> Cel:
    """Return a CEL rule which requires that exactly one of several optional fields of an object is set.

    - ``where``: the path of the object, such as ``spec.dataset``
    - ``fields``: the JSON names of the fields
    """
    given = ", ".join(f"has(self.{escape(field)})" for field in fields)
    return Cel(
        where,
        f"[{given}].exists_one(given, given)",
        f"{where} needs exactly one of {', '.join(fields)}; set one and remove the others",
    )
