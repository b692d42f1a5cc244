"""A model that cannot be trained gets no GPUs. The error says what was found and what is allowed."""

import json
from pathlib import Path
from typing import Any

import pytest

from rft_api.sources import ModelSource
from rft_api.validation import parse
from rft_cli.local.shapes import UntrainableModel, shape_for
from rft_planner.architectures import TRAINABLE, Untrainable, check_name, check_trainable
from rft_planner.catalogue import CATALOGUE
from rft_planner.plan import Unplannable, plan
from tests.manifests import manifest

UNTRAINABLE = [
    "meta-llama/Llama-4-Scout-17B-16E-Instruct",
    "Qwen/Qwen2.5-VL-7B-Instruct",
    "Qwen/Qwen3-Next-80B-A3B-Instruct",
    "Qwen/Qwen3.5-9B",
    "mistralai/Mistral-Small-3.2-24B-Instruct-2506",
    "meta-llama/Llama-3.2-11B-Vision-Instruct",
    "google/gemma-3n-E4B-it",
]


@pytest.mark.parametrize("name", UNTRAINABLE)
@pytest.mark.parametrize("more", [{}, {"parameters": "17B"}])
def test_a_name_of_an_untrainable_family_is_given_no_gpus(name: str, more: dict[str, Any]) -> None:
    with pytest.raises(Unplannable) as refused:
        plan(parse(manifest(model={"name": name, **more})).spec, "uid")
    assert refused.value.reason == "UntrainableModel"
    assert f"spec.model.name: {name}" in str(refused.value)
    assert "allowed: ernie4_5" in str(refused.value)


@pytest.mark.parametrize("name", [*CATALOGUE, "org/llama-4b", "org/own-7B", "/models/gemma-3-4b-it/"])
def test_other_names_are_not_refused(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "llama4"}, "the model_type in its config.json is 'llama4'"),
        ({"model_type": "ministral"}, "is 'ministral'; allowed: ernie4_5"),  # vLLM has no class for it
        ({"model_type": None}, "the model_type in its config.json is None"),
        ({}, "the model_type in its config.json is None"),
        ({"model_type": ["llama"]}, "the model_type in its config.json is ['llama']"),
        (
            {"model_type": "qwen2", "architectures": ["Qwen2ForSequenceClassification"]},
            "for the model_type qwen2 it must be Qwen2ForCausalLM",
        ),
    ],
)
def test_a_config_is_refused_with_what_was_found(config: dict[str, Any], said: str) -> None:
    with pytest.raises(Untrainable) as refused:
        check_trainable(config, "org/own")
    assert said in str(refused.value)
    assert "spec.model.name: org/own" in str(refused.value)


@pytest.mark.parametrize("kind", TRAINABLE)
def test_a_config_of_an_allowed_type_and_class_is_accepted(kind: str) -> None:
    check_trainable({"model_type": kind, "architectures": [TRAINABLE[kind]]}, "org/own")
    check_trainable({"model_type": kind}, "org/own")


def test_a_stated_size_does_not_hide_that_a_folder_cannot_be_trained(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama4"}))
    with pytest.raises(UntrainableModel, match="'llama4'"):
        shape_for(ModelSource(name=str(tmp_path), parameters="7B"), None, hub=False)
