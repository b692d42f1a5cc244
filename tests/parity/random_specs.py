"""Random manifests, made from the fields of the pydantic models.

Many are valid. Others have one or two small mistakes.
"""

from functools import cache
from typing import Any, get_args, get_origin

from hypothesis import strategies as st

from rft_api.base import Model
from rft_api.job import RFTJobSpec
from tests.parity.cases import (
    ALTERNATIVES,
    Kind,
    Sight,
    Value,
    alias,
    kind_of,
    manifest,
    sample,
    values,
)

Object = dict[str, Any]
_NOT_SENT = frozenset({Sight.NOT_JSON, Sight.SCALAR})
"""Values with these properties are not used here: JSON cannot express them, or no schema can check them."""


@cache
def manifests() -> st.SearchStrategy[Object]:
    """Return a Hypothesis strategy for manifests with random specs."""
    return _objects(RFTJobSpec, 0).map(manifest)


@cache
def _objects(model: type[Model], depth: int) -> st.SearchStrategy[Object]:
    """Return a strategy for objects: valid objects in which some fields are replaced.

    ``depth`` is 0 for the spec itself, in which up to four fields are replaced. It is larger for a nested
    object, in which up to two are replaced. A few objects also have an unknown field.
    """
    fields = {alias(name, info): kind_of(info) for name, info in model.model_fields.items()}
    if not fields:
        return st.just({})
    one = st.one_of([st.tuples(st.just(field), _values(kind, depth)) for field, kind in fields.items()])
    few = st.lists(one, max_size=4 if depth == 0 else 2).map(dict)
    return st.builds(_assembled, st.just(model), few, st.integers(0, 99))


def _assembled(model: type[Model], given: Object, chance: int) -> Object:
    """Return an object of ``model`` with the fields in ``given``.

    In some models exactly one field of a group must be set. ``chance``, a number from 0 to 99, says what is
    set:

    - 0 or 1: the object has an unknown field.
    - 2: no field of the group is set.
    - 3 or 4: several fields of the group may be set.
    - 5 or more: exactly one field of the group is set.
    """
    group = [alias(name, model.model_fields[name]) for name in ALTERNATIVES.get(model, ())]
    if chance == 0:
        return {**sample(model, given), "noSuchField": 1}
    if chance == 1:
        return {**sample(model, given), "no_such_field": None}
    if chance == 2:
        return {key: value for key, value in sample(model, given).items() if key not in group}
    if chance > 4:
        surplus = [name for name in given if name in group][1:]
        given = {key: value for key, value in given.items() if key not in surplus}
    return sample(model, given)


def _values(kind: Kind, depth: int) -> st.SearchStrategy[Any]:
    """Return a strategy for values of a field. Most values are valid.

    One in ten is near a limit or has a wrong type. One in 40 is null.
    """
    tried = [value for value in values(kind) if not value.takes & _NOT_SENT]
    valid = [value for value in tried if value.below is None]
    edges = st.sampled_from(_short(tried)).map(lambda value: value.value)
    inner = _within(kind, depth)
    fine = inner if inner is not None else st.sampled_from(_short(valid)).map(lambda value: value.value)
    return st.integers(0, 39).flatmap(lambda n: st.none() if n == 0 else edges if n < 5 else fine)


def _short(tried: list[Value]) -> list[Value]:
    """Return the values that are not very long. Long values only make the test slow."""
    return [value for value in tried if len(repr(value.value)) < 2000]


def _within(kind: Kind, depth: int) -> st.SearchStrategy[Any] | None:
    """Return a strategy for values between the limits. None for types without limits."""
    low, high = (
        kind.limits.get("ge", kind.limits.get("gt", 0)),
        kind.limits.get("le", kind.limits.get("lt", 10**6)),
    )
    if kind.type is int:
        return st.integers(low, high)
    if kind.type is float:
        return st.floats(low, high, exclude_min="gt" in kind.limits, exclude_max="lt" in kind.limits)
    if isinstance(kind.type, type) and issubclass(kind.type, Model):
        return _objects(kind.type, depth + 1)
    if get_origin(kind.type) is list:
        item = get_args(kind.type)[0]
        if isinstance(item, type) and issubclass(item, Model):
            return st.lists(_objects(item, depth + 1), min_size=1, max_size=2)
    return None


def has_whole_float(value: Any, schema: dict[str, Any]) -> bool:
    """Return whether ``value`` has a float such as 8.0 for an integer. CEL refuses 8.0. Clients write 8."""
    if isinstance(value, dict):
        fields = schema.get("properties", {})
        return any(has_whole_float(each, fields.get(key, {})) for key, each in value.items())
    if isinstance(value, list):
        return any(has_whole_float(each, schema.get("items", {})) for each in value)
    return isinstance(value, float) and schema.get("type") == "integer"


def has_empty_text(value: Any) -> bool:
    """Return whether ``value`` has an empty text at any depth. Kubernetes 1.20 treats it as null."""
    if isinstance(value, dict):
        return any(map(has_empty_text, value.values()))
    if isinstance(value, list):
        return any(map(has_empty_text, value))
    return bool(value == "")
