"""rft plan."""

import json
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from rft_cli.main import app
from tests.manifests import manifest


def plan(*options: str, **spec: Any) -> Result:
    text = yaml.safe_dump(manifest(**{"model": {"name": "Qwen/Qwen2.5-14B"}, **spec}))
    return CliRunner().invoke(app, ["plan", "-", *options], input=text)


def test_it_says_gpus_and_why() -> None:
    result = plan()
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("GPUs    2")
    assert "for 14.8B parameters" in result.stdout


@pytest.mark.parametrize(("form", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_machines_read_the_total_at_the_top(form: str, read: Any) -> None:
    found = read(plan("-o", form).stdout)
    assert found["gpus"] == 2
    assert "seed" not in found["effective"]


def test_another_accelerator_makes_another_plan() -> None:
    found = json.loads(plan("-o", "json", "--accelerator", "nvidia-h200-141gb").stdout)
    assert (found["gpus"], found["accelerator"]) == (1, "nvidia-h200-141gb")
    assert json.loads(plan("-o", "json", "--accelerator", "cpu").stdout)["device"] == "cpu"
    asked = plan("-o", "json", "--accelerator", "nvidia-h200-141gb", resources={"gpus": 8})
    assert json.loads(asked.stdout)["gpus"] == 1


def test_an_accelerator_that_is_none_is_refused_with_those_there_are() -> None:
    result = plan("--accelerator", "h100")
    assert result.exit_code == 1
    assert "nvidia-h100-80gb" in result.stderr


def test_an_override_is_obeyed_and_the_plan_says_what_it_would_be() -> None:
    result = plan(resources={"gpus": 1})
    assert result.stdout.startswith("GPUs    1")
    assert "without it: 2 GPUs: 1 holds" in result.stdout
    assert "without it" not in plan(resources={"gpus": 2}).stdout


def test_without_a_size_there_is_no_plan() -> None:
    result = plan(model={"name": "org/secret"})
    assert result.exit_code == 1
    assert "spec.model.parameters" in result.stderr
