"""Settings from the environment, and the first plan."""

from typing import Any

import pytest

from rft_api.sizes import parameter_count
from rft_api.validation import parse
from rft_operator.settings import BadSettings, from_env
from rft_planner.plan import Unplannable, plan
from rft_planner.sizes import gib, quantity


def test_settings_have_defaults() -> None:
    settings = from_env({"RFT_TRAINER_IMAGE": "trainer:1"})
    assert settings.namespaces == ()
    assert settings.ingest_url is None
    assert settings.certificate_names == ()


def test_the_host_of_the_url_is_in_the_certificate() -> None:
    settings = from_env(
        {
            "RFT_TRAINER_IMAGE": "t",
            "RFT_INGEST_URL": "https://10.96.0.50:8443/",
            "RFT_TLS_NAMES": "a.svc, 10.96.0.50",
            "RFT_WATCH_NAMESPACES": "x,y",
        }
    )
    assert settings.certificate_names == ("10.96.0.50", "a.svc")
    assert settings.ingest_url == "https://10.96.0.50:8443"
    assert settings.namespaces == ("x", "y")


@pytest.mark.parametrize(
    "wrong",
    [
        {"RFT_TRAINER_IMAGE": ""},
        {"RFT_INGEST_URL": "http://plain"},
        {"RFT_INGEST_PORT": "many"},
        {"RFT_INGEST_BIND": "everywhere"},
    ],
)
def test_a_wrong_setting_is_named(wrong: dict[str, str]) -> None:
    with pytest.raises(BadSettings, match=next(iter(wrong))):
        from_env({"RFT_TRAINER_IMAGE": "t", **wrong})


def planned(**spec: Any) -> Any:
    document = {
        "apiVersion": "rft.dev/v1alpha1",
        "kind": "RFTJob",
        "metadata": {"name": "j"},
        "spec": {
            "model": {"name": "org/model"},
            "dataset": {"uri": "s3://rows"},
            "graders": [{"name": "g", "numeric": {}}],
            "storage": {"ephemeral": {}},
            **spec,
        },
    }
    return plan(parse(document).spec, "uid")


@pytest.mark.parametrize(("size", "gpus"), [("0.5B", 1), ("7B", 1), ("14B", 2), ("32B", 4), ("72B", 8)])
def test_the_rough_plan_agrees_with_published_minima(size: str, gpus: int) -> None:
    found = planned(model={"name": f"org/Model-{size}-Instruct"})
    assert (found.gpus, found.device) == (gpus, "cuda")


def test_gpus_that_are_given_are_obeyed() -> None:
    assert planned(resources={"gpus": 3}).gpus == 3
    assert planned(resources={"gpus": 0}).device == "cpu"


def test_a_small_model_on_the_cpu_fits_a_small_node() -> None:
    found = planned(model={"name": "SmolLM2-135M"}, resources={"accelerator": {"name": "cpu"}})
    assert (found.gpus, found.cpu, found.memory) == (0, "1500m", "10Gi")


def test_an_unknown_size_names_the_field_to_set() -> None:
    with pytest.raises(Unplannable, match=r"spec\.model\.parameters"):
        planned()
    assert planned(model={"name": "org/model", "parameters": "7B"}).gpus == 1


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", 7e9),
        ("SmolLM2-135M", 135e6),
        ("Mixtral-8x7B", 56e9),
        ("org/model", None),
        ("1.5B", 1.5e9),
    ],
)
def test_a_parameter_count_is_read_from_a_name(text: str, count: float | None) -> None:
    assert parameter_count(text) == count


def test_quantities_are_those_of_kubernetes() -> None:
    assert quantity("80Gi") == 80 * 2**30
    assert quantity("500m") == 0.5
    assert gib(2**30 + 1) == "2Gi"
    with pytest.raises(ValueError, match="quantity"):
        quantity("much")
