"""Finds the fields of an RFTJob by their paths, such as ``spec.sampling.topK``.

The descriptions and the ranges of the fields come from the pydantic classes.
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

from rft_api.job import RFTJobSpec
from rft_api.problems import bounds_text
from rft_api.schema import Schema, structural
from rft_api.status import RFTJobStatus


class UnknownField(LookupError):
    """An error: no field of an RFTJob has the path that was asked for.

    ``meant`` is the path of the most similar field, or None if no field has a similar path.
    """

    def __init__(self, path: str, meant: str | None) -> None:
        super().__init__(f"no field {path}" + (f"; did you mean {meant}?" if meant else ""))
        self.meant = meant


class Field(NamedTuple):
    """A field in the spec or the status of an RFTJob, with its path, description and range."""

    path: str
    """Path of the field. It begins with ``spec`` or ``status``, and a list item is written
    ``spec.graders[]``."""
    type: str
    description: str
    """Description of the field, including its default and range."""
    default: Any
    minimum: float | None
    maximum: float | None
    above_minimum: bool
    """Whether the minimum itself is not allowed."""
    below_maximum: bool
    """Whether the maximum itself is not allowed."""
    choices: tuple[Any, ...]
    children: tuple[str, ...]
    """The names of the fields in this object, or in each item of this list. Empty for any other kind of
    field.
    """

    @property
    def allowed(self) -> str:
        """The allowed values of the field in words, such as ``1 to 10`` or ``one of 4, 8, 16, 32``.

        Empty if the field has neither a range nor a list of allowed values.
        """
        if self.choices:
            return f"one of {', '.join(map(str, self.choices))}"
        limits = {
            "gt" if self.above_minimum else "ge": self.minimum,
            "lt" if self.below_maximum else "le": self.maximum,
        }
        return bounds_text({key: limit for key, limit in limits.items() if limit is not None})

    def allows(self, value: float) -> bool:
        """Return whether a number is within the field's range, or in its list of allowed values."""
        if self.choices:
            return value in self.choices
        above = (
            self.minimum is None or value > self.minimum or (value == self.minimum and not self.above_minimum)
        )
        below = (
            self.maximum is None or value < self.maximum or (value == self.maximum and not self.below_maximum)
        )
        return above and below


def find(path: str) -> Field:
    """Return the field of an RFTJob at ``path``, such as ``spec.sampling.topK`` or ``graders[0].name``.

    The prefix ``spec.`` and indexes such as ``[0]`` may be left out.

    Raises:
        UnknownField: if no field has this path. The message names the most similar path, if one is similar.
    """
    normal = re.sub(r"\[\d*\]", "", path.strip(". "))
    if normal.partition(".")[0] not in _roots():
        normal = f"spec.{normal}"
    found = all_fields().get(normal)
    if found is None:
        raise UnknownField(path, _meant(normal))
    return found


@cache
def all_fields() -> Mapping[str, Field]:
    """Return all fields in the spec and the status of an RFTJob, by their paths.

    The paths have no brackets for list items, as in ``spec.graders.name``.
    """
    return {
        re.sub(r"\[\]", "", field.path): field
        for root, schema in _roots().items()
        for field in _walk(root, schema)
    }


@cache
def _roots() -> Mapping[str, Schema]:
    return {
        "spec": structural(RFTJobSpec, defaults=True),
        "status": structural(RFTJobStatus, defaults=False),
    }


def _walk(path: str, schema: Schema) -> Iterator[Field]:
    item = schema.get("items", {})
    properties = schema.get("properties") or item.get("properties") or {}
    yield Field(
        path=path + ("[]" if item.get("properties") else ""),
        type=_type(schema),
        description=schema.get("description", ""),
        default=schema.get("default"),
        minimum=schema.get("minimum"),
        maximum=schema.get("maximum"),
        above_minimum=schema.get("exclusiveMinimum", False),
        below_maximum=schema.get("exclusiveMaximum", False),
        choices=tuple(schema.get("enum", ())),
        children=tuple(properties),
    )
    for name, child in properties.items():
        yield from _walk(f"{path}.{name}", child)


def _type(schema: Schema) -> str:
    kind = str(schema.get("type", "any"))
    item = schema.get("items")
    return f"list of {item.get('type', 'any')}" if item is not None else kind


def _meant(path: str) -> str | None:
    """Return the path of the field that the user probably meant by ``path``, for which there is no field.

    This is the first path with the same last name. Case, dashes and underscores do not matter. If no path has
    the same last name, return the most similar path. If no path is similar, return None.
    """
    wanted = _fold(path.rpartition(".")[2])
    for known in all_fields():
        if _fold(known.rpartition(".")[2]) == wanted:
            return known
    close = difflib.get_close_matches(path, all_fields(), 1, cutoff=0.8)
    return close[0] if close else None


def _fold(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()
