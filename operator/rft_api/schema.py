"""Converts a pydantic class to the structural schema that a CustomResourceDefinition needs.

The JSON schemas that pydantic makes have keywords that a structural schema does not allow, such as ``$ref``
and ``const``. A keyword that this module cannot convert is an error, so that no constraint gets lost
unnoticed.
"""

from collections.abc import Mapping
from typing import Any

from rft_api.base import Model
from rft_api.forms import FORMS
from rft_api.problems import bounds_text

Schema = dict[str, Any]

_KEPT = (
    "type",
    "description",
    "enum",
    "pattern",
    "format",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "maxProperties",
    "minimum",
    "maximum",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
)
_BOUNDS = {"ge": "minimum", "le": "maximum"}
_HANDLED = (
    *_BOUNDS,
    "$ref",
    "anyOf",
    "const",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "properties",
    "required",
    "items",
    "additionalProperties",
    "default",
    "title",
)


class CannotLower(ValueError):
    """An error: a JSON schema cannot be converted to a structural schema without losing a constraint."""


def structural(model: type[Model], *, defaults: bool) -> Schema:
    """Return the structural schema of the pydantic class ``model``.

    ``defaults``: whether the schema gets default values: true for a spec, and false for a status. List items
    never get default values, because Argo CD would show the RFTJob as OutOfSync for ever.

    Raises:
        CannotLower: if a constraint of the class would get lost.
    """
    source = model.model_json_schema(by_alias=True)
    definitions = source.pop("$defs", {})
    return _lower(source, definitions, defaults, str(model.__name__))


def _lower(source: Schema, definitions: Mapping[str, Schema], defaults: bool, path: str) -> Schema:
    source = _resolve(source, definitions, path)
    unknown = set(source) - set(_KEPT) - set(_HANDLED) - {"$defs"}
    if unknown:
        raise CannotLower(f"{path}: cannot convert the keywords {', '.join(sorted(unknown))}")
    if "anyOf" in source:  # a union of scalar types, for which structural schemas have no type
        described = {"description": source["description"]} if source.get("description") else {}
        return described | {"x-kubernetes-preserve-unknown-fields": True}
    target = {key: source[key] for key in _KEPT if key in source}
    # For an optional number pydantic writes the bounds as ``ge`` and ``le``, its own names.
    target.update({_BOUNDS[key]: source[key] for key in _BOUNDS if key in source})
    for exclusive, inclusive in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if exclusive in source:
            target[inclusive], target[exclusive] = source[exclusive], True
    if "const" in source:
        target["enum"] = [source["const"]]
    if target.get("enum"):
        target["type"] = "integer" if isinstance(target["enum"][0], int) else "string"
    if target.get("type") == "object":
        _lower_object(source, target, definitions, defaults, path)
    if target.get("type") == "array":
        target["items"] = _lower(source["items"], definitions, False, f"{path}[]")
        target.setdefault("x-kubernetes-list-type", "atomic")
    if defaults and (default := source.get("default")) is not None:
        target["default"] = default
    target["description"] = _describe(target, source.get("default"))
    if not target["description"]:
        del target["description"]
    return target


def _resolve(source: Schema, definitions: Mapping[str, Schema], path: str) -> Schema:
    """Replace ``$ref`` in a JSON schema by the schema that it names, and ``anyOf: [X, null]`` by X.

    Keywords beside ``$ref`` or ``anyOf`` override the keywords of the schema that replaces it.
    ``definitions`` are the named schemas, and ``path`` is the schema's place, for messages.

    Raises CannotLower for a union of objects.
    """
    beside = {k: v for k, v in source.items() if k not in ("$ref", "anyOf")}
    if "$ref" in source:
        name = source["$ref"].rsplit("/", 1)[-1]
        return _resolve({**definitions[name], **beside}, definitions, path)
    if "anyOf" in source:
        options = [option for option in source["anyOf"] if option.get("type") != "null"]
        if len(options) == 1:
            return _resolve({**options[0], **beside}, definitions, path)
        if any("$ref" in option or option.get("type") == "object" for option in options):
            raise CannotLower(f"{path}: a structural schema cannot have a union of objects")
    return source


def _lower_object(
    source: Schema, target: Schema, definitions: Mapping[str, Schema], defaults: bool, path: str
) -> None:
    extra = source.get("additionalProperties")
    if source.get("properties"):  # the API server drops an empty object
        target["properties"] = {
            name: _lower(child, definitions, defaults, f"{path}.{name}")
            for name, child in source["properties"].items()
        }
        if required := source.get("required"):
            target["required"] = sorted(required)
    elif extra is True:
        target["x-kubernetes-preserve-unknown-fields"] = True
    elif isinstance(extra, dict):
        target["additionalProperties"] = _lower(extra, definitions, False, f"{path}{{}}")


def _describe(target: Schema, default: object) -> str:
    """Return the description of a field, followed by sentences with its default, range and form.

    So ``kubectl explain`` shows them. ``target`` is the structural schema of the field.
    """
    sentences = [str(target.get("description", "")).strip()]
    if default is not None and default != {} and not isinstance(default, list):
        shown = str(default).lower() if isinstance(default, bool) else f"{default}"
        sentences.append(f"Default: {shown}.")
    if target.get("type") in ("integer", "number") and "enum" not in target:
        names = {"minimum": "gt" if target.get("exclusiveMinimum") else "ge"}
        names["maximum"] = "lt" if target.get("exclusiveMaximum") else "le"
        limits = {names[key]: target[key] for key in names if key in target}
        if limits:
            sentences.append(f"Range: {bounds_text(limits)}.")
    if "enum" in target and len(target["enum"]) > 1:
        sentences.append(f"One of: {', '.join(map(str, target['enum']))}.")
    if (form := FORMS.get(str(target.get("pattern")))) is not None:
        sentences.append(f"Must be {form.words}.")
    return " ".join(filter(None, sentences))
