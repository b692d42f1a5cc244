"""The chart's value ``jobDefaults``: its schema allows known fields only, and the operator reads it."""

import json
from collections.abc import Iterator
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from rft_api.defaults import JobDefaults, read_defaults
from rft_api.resources import Resources
from rft_operator.settings import from_env
from rft_planner.accelerators import ACCELERATORS
from tests.unit.chart_support import CHART, one, rendered, template

Json = dict[str, Any]
SCHEMA: Json = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
OWN = {"accelerator", "gpus", "gpuClaim"}
"""Fields of a job's resources that ``jobDefaults`` cannot have."""


def settings_of(*values: str) -> Any:
    (container,) = one(rendered(*values), "Deployment", "rft-rft-operator")["spec"]["template"]["spec"][
        "containers"
    ]
    return from_env({e["name"]: e["value"] for e in container["env"] if "value" in e})


def test_without_a_value_there_are_no_defaults() -> None:
    assert settings_of().job_defaults == JobDefaults()


def test_the_charts_value_reaches_the_operator() -> None:
    values = (
        "jobDefaults.template.imagePullSecrets[0].name=registry",
        "jobDefaults.accelerators.nvidia-h100-80gb.resources.nodeSelector.pool=h100",
        "jobDefaults.accelerators.nvidia-h100-80gb.resources.pricePerGpuHour=2",
    )
    assert settings_of(*values).job_defaults.dump() == {
        "template": {"imagePullSecrets": [{"name": "registry"}]},
        "accelerators": {
            "nvidia-h100-80gb": {"resources": {"nodeSelector": {"pool": "h100"}, "pricePerGpuHour": 2.0}}
        },
    }


def test_the_example_in_the_values_is_right() -> None:
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    lines = text.partition("\njobDefaults: {}\n")[2].partition("\n\n")[0].splitlines()
    example = yaml.safe_load("\n".join(line.removeprefix("#") for line in lines))
    assert set(example) == set(JobDefaults.model_json_schema()["properties"])
    read_defaults(example, ACCELERATORS)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ("jobDefaults.tolerations[0].key=a", "tolerations"),
        ("jobDefaults.resources.gpus=2", "gpus"),
        ("jobDefaults.accelerators.cpu.template.hostNetwork=true", "hostNetwork"),
        ("jobDefaults.storage.claimTemplate.size=1Gi", "size"),
    ],
)
def test_a_value_that_is_no_default_is_refused_and_named(wrong: str, named: str) -> None:
    done = template(wrong)
    assert done.returncode != 0
    assert f"'{named}' not allowed" in done.stderr


def resolved(schema: Json) -> Json:
    if "$ref" not in schema:
        return schema
    found = SCHEMA
    for name in schema["$ref"].split("/")[1:]:
        found = found[name]
    return found


def differences(model: type[BaseModel], schema: Json, path: str) -> Iterator[tuple[str, set[str]]]:
    """Yield the differences between a pydantic model and ``schema``, its part of the schema of chart values.

    A difference is a path, and the names of the fields that only one of the two has. ``path`` is the path of
    ``model``. The pydantic models in its fields are compared too.
    """
    schema = resolved(schema)
    fields = {info.alias or name: info for name, info in model.model_fields.items()}
    expected = set(fields) - (OWN if model is Resources else set())
    assert schema["additionalProperties"] is False, path
    if expected != set(schema["properties"]):
        yield path, expected ^ set(schema["properties"])
    for name, below in schema["properties"].items():
        (inner, *_) = [each for each in get_args(fields[name].annotation) if each is not type(None)] or [None]
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from differences(inner, below, f"{path}.{name}")
        elif name == "accelerators":
            yield from differences(get_args(inner)[1], below["additionalProperties"], f"{path}.{name}")


def test_the_schema_of_the_values_has_the_fields_of_the_models() -> None:
    assert list(differences(JobDefaults, SCHEMA["properties"]["jobDefaults"], "jobDefaults")) == []
