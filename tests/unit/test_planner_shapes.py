"""A shape has the model's published number of parameters. A shape estimated for more parameters is never
smaller.
"""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rft_planner.catalogue import CATALOGUE, known, shape_of
from rft_planner.modelconfig import UnreadableConfig, from_config
from rft_planner.shapes import estimated

# Parameters in billions, from the model cards.
PUBLISHED = {
    "HuggingFaceTB/SmolLM2-135M": 0.1345,
    "HuggingFaceTB/SmolLM2-360M": 0.362,
    "HuggingFaceTB/SmolLM2-1.7B": 1.71,
    "HuggingFaceTB/SmolLM3-3B": 3.08,
    "meta-llama/Meta-Llama-3-8B": 8.03,
    "meta-llama/Meta-Llama-3-70B": 70.6,
    "meta-llama/Llama-3.2-1B": 1.24,
    "meta-llama/Llama-3.2-3B": 3.21,
    "meta-llama/Llama-3.1-8B": 8.03,
    "meta-llama/Llama-3.1-70B": 70.6,
    "meta-llama/Llama-3.3-70B": 70.6,
    "meta-llama/Llama-3.1-405B": 406,
    "nvidia/Llama-3.1-Nemotron-70B-Instruct-HF": 70.6,
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B": 8.03,
    "deepseek-ai/DeepSeek-R1-Distill-Llama-70B": 70.6,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": 1.78,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": 7.62,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B": 14.8,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B": 32.8,
    "deepseek-ai/DeepSeek-R1-0528-Qwen3-8B": 8.19,
    "Qwen/Qwen2.5-0.5B": 0.494,
    "Qwen/Qwen2.5-1.5B": 1.54,
    "Qwen/Qwen2.5-3B": 3.09,
    "Qwen/Qwen2.5-7B": 7.62,
    "Qwen/Qwen2.5-14B": 14.8,
    "Qwen/Qwen2.5-32B": 32.8,
    "Qwen/Qwen2.5-72B": 72.7,
    "Qwen/QwQ-32B": 32.8,
    "Qwen/Qwen3-0.6B": 0.596,
    "Qwen/Qwen3-1.7B": 1.72,
    "Qwen/Qwen3-4B": 4.02,
    "Qwen/Qwen3-8B": 8.19,
    "Qwen/Qwen3-14B": 14.8,
    "Qwen/Qwen3-32B": 32.8,
    "Qwen/Qwen3-30B-A3B": 30.5,
    "Qwen/Qwen3-235B-A22B": 235,
    "Qwen/Qwen3-Coder-30B-A3B": 30.5,
    "mistralai/Mistral-7B-v0.1": 7.24,
    "mistralai/Mistral-7B-v0.2": 7.24,
    "mistralai/Mistral-7B-v0.3": 7.25,
    "mistralai/Ministral-8B-2410": 8.02,
    "mistralai/Mistral-Nemo-2407": 12.2,
    "mistralai/Mistral-Small-24B-2501": 23.6,
    "mistralai/Mistral-Small-2409": 22.2,
    "mistralai/Mistral-Large-2407": 123,
    "mistralai/Mistral-Large-2411": 123,
    "mistralai/Mixtral-8x7B-v0.1": 46.7,
    "google/gemma-2-2b": 2.61,
    "google/gemma-2-9b": 9.24,
    "google/gemma-2-27b": 27.2,
    "google/gemma-3-1b": 1.0,
    "google/gemma-3-4b": 4.3,
    "google/gemma-3-12b": 12.2,
    "google/gemma-3-27b": 27.4,
    "microsoft/Phi-3-mini-4k": 3.82,
    "microsoft/Phi-3-mini-128k": 3.82,
    "microsoft/Phi-3-medium-4k": 14,
    "microsoft/Phi-3.5-mini": 3.82,
    "microsoft/Phi-4-mini": 3.84,
    "microsoft/phi-4": 14.7,
    "microsoft/Phi-4-reasoning": 14.7,
    "microsoft/Phi-4-reasoning-plus": 14.7,
    "allenai/OLMo-2-1124-7B": 7.3,
    "allenai/OLMo-2-1124-13B": 13.7,
    "THUDM/glm-4-9b-hf": 9.4,
    "THUDM/GLM-4-9B-0414": 9.4,
    "THUDM/GLM-4-32B-0414": 32.6,
    "openai/gpt-oss-20b": 20.9,
    "openai/gpt-oss-120b": 116.8,
}
ACTIVE = {
    "Qwen/Qwen3-30B-A3B": 3.3,
    "Qwen/Qwen3-235B-A22B": 22,
    "mistralai/Mixtral-8x7B-v0.1": 12.9,
    "openai/gpt-oss-20b": 3.6,
    "openai/gpt-oss-120b": 5.1,
}


def published(name: str) -> float:
    """Return the published number of a model's parameters, in billions. For a fine-tuned model it is that of
    its base model.
    """
    for ending in ("-Instruct-2507", "-Instruct", "-Base"):
        name = name if name in PUBLISHED else name.removesuffix(ending)
    return PUBLISHED[name.replace("-Coder-", "-").replace("-Math-", "-") if name not in PUBLISHED else name]


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_shape_has_the_number_of_parameters_on_its_model_card(name: str) -> None:
    assert CATALOGUE[name].parameters == pytest.approx(published(name) * 1e9, rel=0.012)


@pytest.mark.parametrize("name", ACTIVE)
def test_a_mixture_has_the_number_of_active_parameters_on_its_model_card(name: str) -> None:
    # Model cards differ in whether they count the embedding.
    assert CATALOGUE[name].active_parameters == pytest.approx(ACTIVE[name] * 1e9, rel=0.18)


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-7B"),
        ("Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-7B-Instruct"),
        ("Qwen/Qwen2.5-Coder-7B-Instruct", "Qwen/Qwen2.5-Coder-7B"),
        ("Qwen/Qwen2.5-Math-7B", "Qwen/Qwen2.5-Math-7B"),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"),
        ("Qwen/Qwen3-8B-Base", "Qwen/Qwen3-8B-Base"),
        ("Qwen/Qwen3-4B-Instruct-2507", "Qwen/Qwen3-4B-Instruct-2507"),
        ("Qwen/Qwen3-30B-A3B-Thinking-2507", "Qwen/Qwen3-30B-A3B-Instruct-2507"),
        ("Qwen/Qwen3-Coder-30B-A3B-Instruct", "Qwen/Qwen3-Coder-30B-A3B"),
        ("/models/SmolLM2-135M-Instruct", "HuggingFaceTB/SmolLM2-135M"),
        ("unsloth/Meta-Llama-3.1-8B-Instruct/", "meta-llama/Llama-3.1-8B"),
        ("meta-llama/Meta-Llama-3-8B-Instruct", "meta-llama/Meta-Llama-3-8B"),
        ("google/gemma-3-4b-it", "google/gemma-3-4b"),
        ("mistralai/Mistral-7B-Instruct-v0.1", "mistralai/Mistral-7B-v0.1"),
        ("mistralai/Mistral-7B-Instruct-v0.3", "mistralai/Mistral-7B-v0.3"),
        ("mistralai/Mistral-Nemo-Base-2407", "mistralai/Mistral-Nemo-2407"),
        ("mistralai/Ministral-8B-Instruct-2410", "mistralai/Ministral-8B-2410"),
        ("microsoft/Phi-3-medium-4k-instruct", "microsoft/Phi-3-medium-4k"),
        ("THUDM/glm-4-9b-chat-hf", "THUDM/glm-4-9b-hf"),
        ("allenai/OLMo-2-1124-7B-Instruct", "allenai/OLMo-2-1124-7B"),
    ],
)
def test_variants_have_the_shape_of_their_base(written: str, found: str) -> None:
    assert known(written) == found
    assert shape_of(written) == CATALOGUE[found]


@pytest.mark.parametrize(
    "written",
    [
        "org/my-model-7B",
        "Qwen/Qwen2.5-VL-7B-Instruct",
        "Qwen/Qwen2.5-7B-Instruct-1M",
        "Qwen/Qwen2.5-7B-Instruct-AWQ",
        "Qwen/Qwen3-Next-80B-A3B-Instruct",
        "unsloth/Qwen2.5-0.5B-unsloth-bnb-4bit",
        "meta-llama/Llama-3.2-11B-Vision-Instruct",
        "meta-llama/Llama-2-7b-hf",
        "mistralai/Mistral-7B-v0.4",
        "mistralai/Mistral-Small-3.2-24B-Instruct-2506",
        "mistralai/Mistral-Small-Instruct-2501",
        "google/gemma-3n-E4B-it",
        "microsoft/Phi-3-small-8k-instruct",
    ],
)
def test_a_similar_name_of_another_model_is_not_found(written: str) -> None:
    assert known(written) is None
    assert shape_of(written) is None


# Fields of published config files that describe the shape, and some that could be confused with them.
FILES: dict[str, dict[str, Any]] = {
    "Qwen/Qwen2.5-7B-Instruct": {
        "model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "max_window_layers": 28,
        "num_attention_heads": 28, "num_hidden_layers": 28, "num_key_value_heads": 4, "sliding_window": None,
        "tie_word_embeddings": False, "max_position_embeddings": 32768, "vocab_size": 152064,
    },
    "Qwen/Qwen3-8B": {
        "model_type": "qwen3", "attention_bias": False, "head_dim": 128, "hidden_size": 4096,
        "intermediate_size": 12288, "max_position_embeddings": 40960, "num_attention_heads": 32,
        "num_hidden_layers": 36, "num_key_value_heads": 8, "rope_scaling": None,
        "tie_word_embeddings": False, "vocab_size": 151936,
    },
    "Qwen/Qwen3-Coder-30B-A3B": {
        "model_type": "qwen3_moe", "attention_bias": False, "decoder_sparse_step": 1, "head_dim": 128,
        "hidden_size": 2048, "intermediate_size": 5472, "max_position_embeddings": 262144,
        "mlp_only_layers": [], "moe_intermediate_size": 768, "num_attention_heads": 32, "num_experts": 128,
        "num_experts_per_tok": 8, "num_hidden_layers": 48, "num_key_value_heads": 4, "qkv_bias": False,
        "shared_expert_intermediate_size": 0, "tie_word_embeddings": False, "use_qk_norm": True,
        "vocab_size": 151936,
    },
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": {
        "model_type": "qwen2", "hidden_size": 1536, "intermediate_size": 8960,
        "max_position_embeddings": 131072, "num_attention_heads": 12, "num_hidden_layers": 28,
        "num_key_value_heads": 2, "tie_word_embeddings": False, "vocab_size": 151936,
    },
    "mistralai/Ministral-8B-2410": {
        "model_type": "mistral", "head_dim": 128, "hidden_size": 4096, "intermediate_size": 12288,
        "max_position_embeddings": 32768, "num_attention_heads": 32, "num_hidden_layers": 36,
        "num_key_value_heads": 8, "sliding_window": 32768, "tie_word_embeddings": False, "vocab_size": 131072,
    },
    "google/gemma-2-27b": {
        "model_type": "gemma2", "attention_bias": False, "head_dim": 128, "hidden_size": 4608,
        "intermediate_size": 36864, "max_position_embeddings": 8192, "num_attention_heads": 32,
        "num_hidden_layers": 46, "num_key_value_heads": 16, "sliding_window": 4096, "vocab_size": 256000,
    },
    "google/gemma-3-4b": {
        "model_type": "gemma3", "mm_tokens_per_image": 256,
        "text_config": {
            "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text",
            "num_hidden_layers": 34, "sliding_window": 1024,
        },
        "vision_config": {
            "hidden_size": 1152, "image_size": 896, "intermediate_size": 4304, "patch_size": 14,
            "model_type": "siglip_vision_model", "num_attention_heads": 16, "num_hidden_layers": 27,
            "vision_use_head": False,
        },
    },
    "microsoft/Phi-4-mini": {
        "model_type": "phi3", "attention_bias": False, "hidden_size": 3072, "intermediate_size": 8192,
        "lm_head_bias": False, "max_position_embeddings": 131072, "mlp_bias": False,
        "num_attention_heads": 24, "num_hidden_layers": 32, "num_key_value_heads": 8,
        "original_max_position_embeddings": 4096, "partial_rotary_factor": 0.75, "tie_word_embeddings": True,
        "vocab_size": 200064,
    },
    "allenai/OLMo-2-1124-13B": {
        "model_type": "olmo2", "attention_bias": False, "hidden_size": 5120, "intermediate_size": 13824,
        "max_position_embeddings": 4096, "num_attention_heads": 40, "num_hidden_layers": 40,
        "num_key_value_heads": 40, "tie_word_embeddings": False, "vocab_size": 100352,
    },
    "THUDM/GLM-4-32B-0414": {
        "model_type": "glm4", "attention_bias": False, "head_dim": 128, "hidden_size": 6144,
        "intermediate_size": 23040, "max_position_embeddings": 32768, "num_attention_heads": 48,
        "num_hidden_layers": 61, "num_key_value_heads": 2, "partial_rotary_factor": 0.5,
        "tie_word_embeddings": False, "vocab_size": 151552,
    },
    "openai/gpt-oss-20b": {
        "model_type": "gpt_oss", "attention_bias": True, "experts_per_token": 4, "head_dim": 64,
        "hidden_size": 2880, "initial_context_length": 4096, "intermediate_size": 2880,
        "layer_types": ["sliding_attention", "full_attention"] * 12, "max_position_embeddings": 131072,
        "num_attention_heads": 64, "num_experts_per_tok": 4, "num_hidden_layers": 24,
        "num_key_value_heads": 8, "num_local_experts": 32, "vocab_size": 201088,
        "quantization_config": {"quant_method": "mxfp4"}, "tie_word_embeddings": False,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_config_gives_the_shape_in_the_catalogue(name: str) -> None:
    assert from_config(FILES[name]) == CATALOGUE[name]


LLAMA = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "vocab_size": 100,
}  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"hidden_size": None}, "hidden_size: None"),
        ({"hidden_size": "4096"}, "hidden_size: '4096'"),
        ({"num_hidden_layers": 0}, "num_hidden_layers: 0"),
        ({"num_attention_heads": True}, "num_attention_heads: True"),
        ({"num_key_value_heads": 3}, "num_key_value_heads: 3 does not divide num_attention_heads 4"),
        ({"model_type": None}, "model_type: None"),
        ({"model_type": "arcee"}, "model_type: 'arcee'"),  # two feed-forward matrices, not three
        ({"is_encoder_decoder": True}, "is_encoder_decoder: True means an encoder and a decoder"),
        ({"model_type": "deepseek_v3", "kv_lora_rank": 512}, "kv_lora_rank: 512 means latent attention"),
        ({"model_type": "jamba", "mamba_d_state": 16}, "mamba_d_state: 16 means layers with a state"),
        ({"layer_types": ["full_attention", "conv"]}, "layer_types: 'conv'"),
        ({"model_type": "gemma3n_text", "num_kv_shared_layers": 15}, "num_kv_shared_layers: 15"),
        ({"vision_config": {"model_type": "pixtral"}}, "vision_config.model_type: 'pixtral'"),
        ({"model_type": "mixtral"}, "num_experts: None"),
    ],
)
def test_an_unsupported_config_is_refused_with_the_field(fields: dict[str, Any], names: str) -> None:
    from_config(LLAMA)
    with pytest.raises(UnreadableConfig) as refused:
        from_config(LLAMA | fields)
    assert f"config.json: {names}" in str(refused.value)
    assert "set spec.model.parameters" in str(refused.value)


@given(st.sampled_from(sorted(CATALOGUE)), st.integers(1, 64), st.booleans())
def test_more_rank_or_more_matrices_never_give_a_smaller_adapter(name: str, rank: int, wide: bool) -> None:
    shape = CATALOGUE[name]
    adapter = shape.lora_parameters(rank, feed_forward=wide)
    assert adapter < shape.lora_parameters(rank + 1, feed_forward=wide)
    assert adapter <= shape.lora_parameters(rank)


@given(st.floats(1e6, 1e12), st.floats(1e6, 1e12))
def test_an_estimate_never_shrinks_as_the_count_grows(one: float, other: float) -> None:
    small, large = estimated(min(one, other)), estimated(max(one, other))
    for field in ("parameters", "layers", "hidden", "intermediate", "kv_elements_per_token"):
        assert getattr(small, field) <= getattr(large, field), field
    assert small.lora_parameters(8) <= large.lora_parameters(8)


@pytest.mark.parametrize(
    "name", [n for n, s in CATALOGUE.items() if not s.experts and n in PUBLISHED and PUBLISHED[n] > 1]
)
def test_an_estimate_from_the_count_is_near_the_real_shape(name: str) -> None:
    real, guess = CATALOGUE[name], estimated(CATALOGUE[name].parameters)
    assert guess.parameters == real.parameters
    # Too large is better than too small, because the estimate decides whether a run fits.
    assert 0.7 < guess.hidden * guess.layers / (real.hidden * real.layers) < 2.3
