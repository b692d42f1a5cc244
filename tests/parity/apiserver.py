"""Computes, without an API server, the object that an API server would store.

The steps are those of apiextensions-apiserver:

- remove fields that are not in the structural schema;
- remove null where a field has no default;
- set defaults;
- validate.
"""

import copy
import operator
import re
from collections.abc import Iterator
from typing import Any

from jsonschema import Draft4Validator, ValidationError, validators

Schema = dict[str, Any]
PRESERVE = "x-kubernetes-preserve-unknown-fields"


def stored(document: dict[str, Any], schema: Schema) -> dict[str, Any]:
    """Return the object in the form in which the API server validates and stores it."""
    kept = copy.deepcopy(document)
    _prune(kept, schema, root=True)
    _drop_nulls(kept, schema)
    _default(kept, schema)
    return kept


def _child(schema: Schema, key: str) -> Schema | None:
    """Return the schema of a field. None if the object's schema does not have the field."""
    found = schema.get("properties", {}).get(key, schema.get("additionalProperties"))
    return found if isinstance(found, dict) else None


def _prune(value: Any, schema: Schema, root: bool = False) -> None:
    if isinstance(value, list):
        for item in value:
            _prune(item, schema.get("items", {}))
    if not isinstance(value, dict) or schema.get(PRESERVE):
        return
    for key in list(value):
        child = _child(schema, key)
        if root and key in ("apiVersion", "kind", "metadata"):
            continue
        if child is None:
            del value[key]
        else:
            _prune(value[key], child)


def _drop_nulls(value: Any, schema: Schema) -> None:
    if isinstance(value, list):
        for item in value:
            _drop_nulls(item, schema.get("items", {}))
    if not isinstance(value, dict):
        return
    for key in list(value):
        child = _child(schema, key)
        if child is None:
            continue
        if value[key] is None and "default" not in child:
            del value[key]
        else:
            _drop_nulls(value[key], child)


def _default(value: Any, schema: Schema) -> None:
    if isinstance(value, list):
        for item in value:
            _default(item, schema.get("items", {}))
    if not isinstance(value, dict):
        return
    for key, child in schema.get("properties", {}).items():
        if "default" in child and value.get(key) is None:
            value[key] = copy.deepcopy(child["default"])
    for key in value:
        if (child := _child(schema, key)) is not None:
            _default(value[key], child)


def complaints(document: dict[str, Any], schema: Schema, by_cel: bool = True) -> list[str]:
    """Return the validation errors of an object. Each error names the path of a field.

    If ``by_cel`` is true, also check those CEL rules of the schema that are about a single text or number.
    API servers with CEL check them too.
    """
    validator = _WITH_FORMS if by_cel else _VALIDATOR
    found = validator(schema).iter_errors(stored(document, schema))
    return [f"{_path(error)}: {error.message}" for error in found]


def _path(error: ValidationError) -> str:
    parts: list[int | str] = list(error.absolute_path)
    if error.validator == "required":
        # The message begins with the quoted name of the field.
        parts.append(error.message.split("'")[1])
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _is_integer(_checker: Any, value: object) -> bool:
    if isinstance(value, float):
        return value.is_integer() and abs(value) < 2**53
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def re2(pattern: str) -> re.Pattern[str]:
    """Return a Python pattern that matches the same texts as ``pattern`` does in Go's RE2.

    In RE2 character classes contain only ASCII characters, and ``$`` matches only at the end of the text.
    """
    if "$" in pattern[:-1] or re.search(r"\\[^.\[\]]", pattern):
        raise NotImplementedError(
            f"{pattern}: only $ at the end and the escapes \\. \\[ \\] can be translated"
        )
    return re.compile(re.sub(r"\$$", r"\\Z", pattern), re.ASCII)


_MATCHES = re.compile(r"(?:!has\([\w.]+\) \|\| )*self((?:\.\w+)*)\.matches\('((?:[^'\\]|\\.)*)'\)")


_BOUND = re.compile(r"self (>=|>|<=|<) ([-+.e\d]+)")
_COMPARE = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}


def _forms(_validator: Any, rules: list[Schema], value: object, _schema: Schema) -> Iterator[ValidationError]:
    """Check a value by the CEL rules about the form of one text, or about the bounds of one number.

    All other CEL rules are tested with a real API server.
    """
    for rule in rules:
        bounds = [_BOUND.fullmatch(part) for part in rule["rule"].split(" && ")]
        if all(bounds) and isinstance(value, int | float) and not isinstance(value, bool):
            kept = [_COMPARE[bound[1]](value, float(bound[2])) for bound in bounds if bound]
            if not all(kept):
                yield ValidationError(rule["message"])
        found = _MATCHES.fullmatch(rule["rule"])
        if found is None:
            continue
        path, text = found[1].split(".")[1:], value
        for key in path:
            text = text.get(key) if isinstance(text, dict) else None
        if isinstance(text, str) and not re2(re.sub(r"\\(.)", r"\1", found[2])).search(text):
            yield ValidationError(rule["message"], path=path)


def _map_keys(_validator: Any, keys: list[str], value: object, _schema: Schema) -> Iterator[ValidationError]:
    seen = []
    for index, item in enumerate(value if isinstance(value, list) else []):
        identity = [item.get(key) for key in keys] if isinstance(item, dict) else None
        if identity is not None and identity in seen:
            yield ValidationError(f"Duplicate value: {identity}", path=[index])
        seen.append(identity)


_VALIDATOR = validators.extend(
    Draft4Validator,
    {"x-kubernetes-list-map-keys": _map_keys},
    type_checker=Draft4Validator.TYPE_CHECKER.redefine("integer", _is_integer),
)
_WITH_FORMS = validators.extend(_VALIDATOR, {"x-kubernetes-validations": _forms})
