"""The planner counts the parameters of real ``transformers`` models and peft adapters correctly."""

from typing import Any, Literal

import pytest
from peft import get_peft_model
from transformers import AutoModelForCausalLM

from bench.tiny_models import CONFIGS, config_of
from rft_api.parameters import Training
from rft_planner.layouts import LAYOUTS
from rft_planner.modelconfig import from_config
from rft_planner.shapes import Shape
from rft_trainer.learn.policy import lora_config

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "ernie4_5 with biases": ("ernie4_5", {"use_bias": True}),
    "glm4 without biases": ("glm4", {"attention_bias": False}),
    "glm4_moe with norms": ("glm4_moe", {"use_qk_norm": True}),
    "llama, tied": ("llama", {"tie_word_embeddings": True}),
    "llama with biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "qwen3 with biases": ("qwen3", {"attention_bias": True}),
    "qwen3_moe, one layer dense": ("qwen3_moe", {"mlp_only_layers": [1]}),
    "qwen3_moe, every other dense": ("qwen3_moe", {"decoder_sparse_step": 2}),
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {kind: (kind, {}) for kind in CONFIGS} | VARIANTS


def built(name: str) -> tuple[Any, Shape]:
    model_type, fields = MODELS[name]
    config = config_of(model_type, **fields)
    return AutoModelForCausalLM.from_config(config), from_config(config.to_dict())


def trained(model: Any, rank: int, targets: Literal["all-linear", "attention"]) -> int:
    lora = lora_config(Training(lora_targets=targets), model.config)
    lora.r = rank
    return int(get_peft_model(model, lora).get_nb_trainable_parameters()[0])


@pytest.mark.parametrize("name", MODELS)
def test_a_config_gives_the_parameter_count_of_its_model(name: str) -> None:
    model, shape = built(name)
    assert shape.parameters == model.num_parameters()


@pytest.mark.filterwarnings("ignore::RuntimeWarning:peft")
@pytest.mark.parametrize("rank", [1, 4])
@pytest.mark.parametrize("name", MODELS)
def test_the_planned_size_of_an_adapter_of_all_linear_layers_is_exact(name: str, rank: int) -> None:
    model, shape = built(name)
    assert shape.lora_parameters(rank) == trained(model, rank, "all-linear")


@pytest.mark.parametrize("name", MODELS)
def test_the_planned_size_of_an_adapter_of_the_attention_is_exact(name: str) -> None:
    model, shape = built(name)
    assert shape.lora_parameters(4, feed_forward=False) == trained(model, 4, "attention")


def test_every_layout_is_tested_with_a_model() -> None:
    assert {config_of(model_type).get_text_config().model_type for model_type in CONFIGS} == set(LAYOUTS)


def test_the_model_with_a_vision_tower_has_one() -> None:
    model, shape = built("gemma3")
    assert shape.parameters > built("gemma3_text")[1].parameters
    assert any("vision_tower" in name for name, _ in model.named_parameters())
