"""The schema of the chart's values refuses unknown values, at every level."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.unit.chart_support import CHART, template

SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
FREE = {"webhook.namespaceSelector", "affinity", "podSecurityContext", "securityContext"}
"""Values that the chart copies into Kubernetes objects.

The chart's schema allows any field in these values. The API server checks the fields instead.
"""


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref")
    return SCHEMA["definitions"][reference.rpartition("/")[2]] if reference else schema


def objects(values: dict[str, Any], schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield the path, the values and the schema of each object in ``values``.

    ``path`` is the path of ``values``. An object that is not in ``schema`` has the schema ``{}``.
    """
    yield path, values, schema
    for name, value in values.items():
        if isinstance(value, dict):
            below = resolved(schema.get("properties", {}).get(name, {}))
            yield from objects(value, below, f"{path}.{name}".lstrip("."))


def test_every_value_is_in_the_schema() -> None:
    unknown = [
        f"{path}.{name}"
        for path, values, schema in objects(VALUES, SCHEMA)
        if "properties" in schema
        for name in values
        if name not in schema["properties"]
    ]
    assert unknown == []


def test_every_object_of_the_schema_is_closed() -> None:
    assert [
        path
        for path, _values, schema in objects(VALUES, SCHEMA)
        if schema.get("additionalProperties", True) is True and not path.startswith(tuple(FREE))
    ] == []


@pytest.mark.parametrize(
    ("wrong", "named"),
    [("replica=2", "replica"), ("kueue.reads=false", "reads"), ("resources.request.cpu=1", "request")],
)
def test_an_unknown_value_is_refused_and_named(wrong: str, named: str) -> None:
    done = template(wrong)
    assert done.returncode != 0
    assert f"'{named}' not allowed" in done.stderr
