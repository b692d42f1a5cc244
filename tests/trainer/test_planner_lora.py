"""The planner's parameter counts are exactly those of ``transformers`` models and peft adapters."""

from typing import Any, Literal

import pytest
import transformers
from peft import get_peft_model
from transformers import AutoModelForCausalLM

from rft_api.parameters import Training
from rft_planner.layouts import LAYOUTS
from rft_planner.modelconfig import from_config
from rft_planner.shapes import Shape
from rft_trainer.learn.policy import lora_config

SIZES = {
    "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 96,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 24}

CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "ernie4_5": ("Ernie4_5Config", {}),
    "ernie4_5 with biases": ("Ernie4_5Config", {"use_bias": True}),
    "exaone4": ("Exaone4Config", {"head_dim": None, "sliding_window_pattern": 2}),
    "gemma": ("GemmaConfig", {}),
    "gemma2": ("Gemma2Config", {}),
    "gemma3_text": ("Gemma3TextConfig", {}),
    "glm": ("GlmConfig", {}),
    "glm4": ("Glm4Config", {}),
    "glm4 without biases": ("Glm4Config", {"attention_bias": False}),
    "glm4_moe": ("Glm4MoeConfig", {**EXPERTS, "n_routed_experts": 4, "first_k_dense_replace": 1}),
    "glm4_moe with norms": ("Glm4MoeConfig", {**EXPERTS, "n_routed_experts": 4, "use_qk_norm": True}),
    "gpt_oss": ("GptOssConfig", {"num_local_experts": 4}),
    "granite": ("GraniteConfig", {"head_dim": None}),
    "hunyuan_v1_dense": ("HunYuanDenseV1Config", {}),
    "llama": ("LlamaConfig", {}),
    "llama, tied": ("LlamaConfig", {"tie_word_embeddings": True}),
    "llama with biases": ("LlamaConfig", {"attention_bias": True, "mlp_bias": True}),
    "ministral3": ("Ministral3Config", {}),
    "mistral": ("MistralConfig", {}),
    "mixtral": ("MixtralConfig", {"num_local_experts": 4}),
    "olmo2": ("Olmo2Config", {"head_dim": None}),
    "olmo3": ("Olmo3Config", {"head_dim": None}),
    "olmoe": ("OlmoeConfig", {"head_dim": None, "num_experts": 4, "num_experts_per_tok": 2}),
    "phi3": ("Phi3Config", {"head_dim": None}),
    "qwen2": ("Qwen2Config", {"head_dim": None}),
    "qwen2_moe": (
        "Qwen2MoeConfig",
        {**EXPERTS, "head_dim": None, "num_experts": 4, "shared_expert_intermediate_size": 56},
    ),
    "qwen3": ("Qwen3Config", {}),
    "qwen3 with biases": ("Qwen3Config", {"attention_bias": True}),
    "qwen3_moe": ("Qwen3MoeConfig", {**EXPERTS, "num_experts": 4}),
    "qwen3_moe, one layer dense": ("Qwen3MoeConfig", {**EXPERTS, "num_experts": 4, "mlp_only_layers": [1]}),
    "qwen3_moe, every other dense": (
        "Qwen3MoeConfig",
        {**EXPERTS, "num_experts": 4, "decoder_sparse_step": 2},
    ),
    "smollm3": ("SmolLM3Config", {"head_dim": None}),
}
TOWER = {
    "hidden_size": 32, "intermediate_size": 56, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": 28, "patch_size": 14, "vision_use_head": False,
}  # fmt: skip


def built(name: str) -> tuple[Any, Shape]:
    kind, fields = CONFIGS[name]
    sizes = {key: value for key, value in {**SIZES, **fields}.items() if value is not None}
    config = getattr(transformers, kind)(**sizes)
    return AutoModelForCausalLM.from_config(config), from_config(config.to_dict())


def trained(model: Any, rank: int, targets: Literal["all-linear", "attention"]) -> int:
    lora = lora_config(Training(lora_targets=targets), model.config)
    lora.r = rank
    return int(get_peft_model(model, lora).get_nb_trainable_parameters()[0])


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_gives_the_parameter_count_of_its_model(name: str) -> None:
    model, shape = built(name)
    assert shape.parameters == model.num_parameters()


@pytest.mark.filterwarnings("ignore::RuntimeWarning:peft")
@pytest.mark.parametrize("rank", [1, 4])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_planned_size_of_an_adapter_of_all_linear_layers_is_exact(name: str, rank: int) -> None:
    model, shape = built(name)
    assert shape.lora_parameters(rank) == trained(model, rank, "all-linear")


@pytest.mark.parametrize("name", CONFIGS)
def test_the_planned_size_of_an_adapter_of_the_attention_is_exact(name: str) -> None:
    model, shape = built(name)
    assert shape.lora_parameters(4, feed_forward=False) == trained(model, 4, "attention")


def test_every_layout_is_tested_with_a_model() -> None:
    assert {getattr(transformers, kind).model_type for kind, _ in CONFIGS.values()} == set(LAYOUTS)


def test_a_vision_tower_is_counted_and_has_no_adapter() -> None:
    config = transformers.Gemma3Config(text_config=SIZES, vision_config=TOWER, mm_tokens_per_image=4)
    model = AutoModelForCausalLM.from_config(config)
    shape = from_config(config.to_dict())
    assert shape.parameters == model.num_parameters()
    assert shape.lora_parameters(4) == trained(model, 4, "all-linear")
