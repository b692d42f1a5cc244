"""The grader ``jsonSchema``: checks whether a completion is JSON that is valid under a schema. It uses the
library jsonschema, but never downloads a schema.
"""

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
    """A JSON schema cannot be used. The message says which part of it is wrong."""


def validator(schema_text: str) -> Validator:
    """Return a validator for the JSON schema ``schema_text``. The schema follows the draft that its
    ``$schema`` names, or draft 2020-12 if it names none.

    Raises SchemaProblem if the text is not JSON, is not a valid schema, or refers to another document.
    """
    schema = _parsed(schema_text)
    kind = validator_for(schema, default=None) if _names_draft(schema) else Draft202012Validator
    if kind is None:
        raise SchemaProblem(f"$schema: {schema['$schema']} is not a known draft; remove it for draft 2020-12")
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        raise SchemaProblem(f"{_place(error.absolute_path)}: {error.message[:200]}") from error
    except RecursionError as error:
        raise SchemaProblem("the schema is nested too deeply") from error
    draft = schema["$schema"] if _names_draft(schema) else Draft202012Validator.META_SCHEMA["$schema"]
    resource: Resource[Any] = specification_with(draft).create_resource(schema)
    # With an explicit registry the library fetches no remote references.
    registry: SchemaRegistry = REGISTRY.with_resource(resource.id() or "", resource).crawl()
    _check_references(resource, registry)
    return kind(schema, registry=registry)


def valid(completion: str, schema: Validator) -> float:
    """Return 1.0 if the completion is JSON that is valid under the schema, else 0.0.

    The JSON may be in a fenced code block if the completion has no other text.
    """
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
        raise SchemaProblem(
            f'the schema is not JSON: {error}; write JSON, such as {{"type": "object"}}'
        ) from error
    if not isinstance(schema, dict | bool):
        raise SchemaProblem(f"a schema must be a JSON object or a boolean, not {type(schema).__name__}")
    return schema


def _names_draft(schema: Any) -> bool:
    return isinstance(schema, dict) and "$schema" in schema


def _check_references(resource: "Resource[Any]", registry: SchemaRegistry) -> None:
    """Raise SchemaProblem if a reference in the schema, such as ``$ref``, points to another document.
    References to the drafts of JSON Schema are allowed.
    """
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
                    f"{keyword} {target} is not in the schema, and no other document is read: copy it to"
                    " $defs"
                ) from error
        pending += [(part, resolver.in_subresource(part)) for part in here.subresources()]


def _place(path: Any) -> str:
    """Return the position of an error in a schema as text, such as /properties/name. / is the whole schema.

    ``path`` has the keys and indices that lead to this position.
    """
    return "/" + "/".join(str(part) for part in path)


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not valid in JSON")
