"""Grader ``jsonSchema``, with the library jsonschema, which never fetches a remote schema here."""

import json
import re
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from jsonschema.protocols import Validator
from jsonschema.validators import validator_for
from jsonschema_specifications import REGISTRY
from referencing import Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import SchemaRegistry, specification_with

_FENCED = re.compile(r"\s*```(?:json|JSON)?[ \t]*\n(.*?)\n?[ \t]*```\s*", re.DOTALL)
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")


class SchemaProblem(ValueError):
    """A schema that cannot be used; the message says where."""


def validator(schema_text: str) -> Validator:
    """Return the validator of a schema: of the draft that its ``$schema`` names, else of draft 2020-12.

    Raises SchemaProblem where it is not JSON or not a schema, or has a reference to another document.
    """
    schema = _parsed(schema_text)
    kind = validator_for(schema, default=None) if _names_draft(schema) else Draft202012Validator
    if kind is None:
        raise SchemaProblem(f"$schema: {schema['$schema']} is no known draft; leave it out for draft 2020-12")
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        raise SchemaProblem(f"{_place(error.absolute_path)}: {error.message[:200]}") from error
    except RecursionError as error:
        raise SchemaProblem("nested too deeply") from error
    draft = schema["$schema"] if _names_draft(schema) else Draft202012Validator.META_SCHEMA["$schema"]
    resource: Resource[Any] = specification_with(draft).create_resource(schema)
    # With an explicit registry the library fetches no remote references.
    registry: SchemaRegistry = REGISTRY.with_resource(resource.id() or "", resource).crawl()
    _check_references(resource, registry)
    return kind(schema, registry=registry)


def valid(completion: str, schema: Validator) -> float:
    """Return 1.0 when the completion is valid JSON, bare or as a single fenced code block; else 0.0."""
    fenced = _FENCED.fullmatch(completion)
    try:
        value = json.loads(fenced[1] if fenced else completion, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return 0.0
    return float(schema.is_valid(value))


def _parsed(text: str) -> Any:
    try:
        schema = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise SchemaProblem(f"not JSON: {error}") from error
    if not isinstance(schema, dict | bool):
        raise SchemaProblem(f"a schema is a JSON object or a boolean, not {type(schema).__name__}")
    return schema


def _names_draft(schema: Any) -> bool:
    return isinstance(schema, dict) and "$schema" in schema


def _check_references(resource: "Resource[Any]", registry: SchemaRegistry) -> None:
    """Raise SchemaProblem for a reference to anything but this schema and the drafts' own schemas."""
    pending = [(resource, registry.resolver_with_root(resource))]
    while pending:
        here, resolver = pending.pop()
        for keyword in _REFERENCES:
            target = here.contents.get(keyword) if isinstance(here.contents, dict) else None
            if not isinstance(target, str):
                continue
            try:
                resolver.lookup(target)
            except Unresolvable as error:
                raise SchemaProblem(
                    f"{keyword} {target} is not in the schema, and nothing is fetched: put it under $defs"
                ) from error
        pending += [(part, resolver.in_subresource(part)) for part in here.subresources()]


def _place(path: Any) -> str:
    """Return a path as a JSON pointer; / for the root."""
    return "/" + "/".join(str(part) for part in path)


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
