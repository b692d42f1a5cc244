"""Shapes count what is published, and never shrink as a stated size grows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rft_planner.catalogue import CATALOGUE, known, shape_of
from rft_planner.shapes import UnreadableConfig, estimated, from_config

# Parameters as the model cards give them, in billions.
PUBLISHED = {
    "HuggingFaceTB/SmolLM2-135M": 0.1345,
    "HuggingFaceTB/SmolLM2-360M": 0.362,
    "HuggingFaceTB/SmolLM2-1.7B": 1.71,
    "meta-llama/Llama-3.2-1B": 1.24,
    "meta-llama/Llama-3.2-3B": 3.21,
    "meta-llama/Llama-3.1-8B": 8.03,
    "meta-llama/Llama-3.1-70B": 70.6,
    "meta-llama/Llama-3.3-70B": 70.6,
    "meta-llama/Llama-3.1-405B": 406,
    "Qwen/Qwen2.5-0.5B": 0.494,
    "Qwen/Qwen2.5-1.5B": 1.54,
    "Qwen/Qwen2.5-3B": 3.09,
    "Qwen/Qwen2.5-7B": 7.62,
    "Qwen/Qwen2.5-14B": 14.8,
    "Qwen/Qwen2.5-32B": 32.8,
    "Qwen/Qwen2.5-72B": 72.7,
    "Qwen/Qwen3-0.6B": 0.596,
    "Qwen/Qwen3-1.7B": 1.72,
    "Qwen/Qwen3-4B": 4.02,
    "Qwen/Qwen3-8B": 8.19,
    "Qwen/Qwen3-14B": 14.8,
    "Qwen/Qwen3-32B": 32.8,
    "Qwen/Qwen3-30B-A3B": 30.5,
    "Qwen/Qwen3-235B-A22B": 235,
    "mistralai/Mistral-7B-v0.3": 7.25,
    "mistralai/Mistral-Nemo-2407": 12.2,
    "mistralai/Mistral-Small-24B-2501": 23.6,
    "mistralai/Mistral-Large-2407": 123,
    "mistralai/Mixtral-8x7B-v0.1": 46.7,
    "google/gemma-2-2b": 2.61,
    "google/gemma-2-9b": 9.24,
    "google/gemma-2-27b": 27.2,
    "google/gemma-3-1b": 1.0,
    "google/gemma-3-4b": 3.88,
    "google/gemma-3-12b": 11.8,
    "google/gemma-3-27b": 27.0,
    "microsoft/Phi-3.5-mini": 3.82,
    "microsoft/Phi-4-mini": 3.84,
    "microsoft/phi-4": 14.7,
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


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_shape_has_as_many_parameters_as_its_card_says(name: str) -> None:
    assert CATALOGUE[name].parameters == pytest.approx(PUBLISHED[name] * 1e9, rel=0.012)


@pytest.mark.parametrize("name", ACTIVE)
def test_a_mixture_uses_as_many_as_its_card_says(name: str) -> None:
    # Cards differ in whether they count the embedding.
    assert CATALOGUE[name].active_parameters == pytest.approx(ACTIVE[name] * 1e9, rel=0.18)


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-7B"),
        ("/models/SmolLM2-135M-Instruct", "HuggingFaceTB/SmolLM2-135M"),
        ("unsloth/Meta-Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B"),
        ("google/gemma-3-4b-it", "google/gemma-3-4b"),
        ("mistralai/Mistral-7B-Instruct-v0.3", "mistralai/Mistral-7B-v0.3"),
        ("org/my-model-7B", None),
    ],
)
def test_variants_are_found_under_their_base(written: str, found: str | None) -> None:
    assert known(written) == found
    assert (shape_of(written) is None) == (found is None)


def test_a_config_is_read_as_the_catalogue_has_it() -> None:
    config = {
        "model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064,
        "tie_word_embeddings": False, "max_position_embeddings": 32768,
    }  # fmt: skip
    assert from_config(config) == CATALOGUE["Qwen/Qwen2.5-7B"]
    moe = {
        "model_type": "qwen3_moe", "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 48,
        "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "vocab_size": 151936,
        "tie_word_embeddings": False, "max_position_embeddings": 40960, "num_experts": 128,
        "num_experts_per_tok": 8, "moe_intermediate_size": 768, "attention_bias": False,
    }  # fmt: skip
    assert from_config(moe) == CATALOGUE["Qwen/Qwen3-30B-A3B"]
    assert from_config({"text_config": moe, "model_type": "seen"}) == CATALOGUE["Qwen/Qwen3-30B-A3B"]


@pytest.mark.parametrize("broken", [{}, {"hidden_size": "4096"}, {"hidden_size": 0}])
def test_a_config_that_says_nothing_is_refused_by_its_field(broken: dict[str, object]) -> None:
    with pytest.raises(UnreadableConfig, match="hidden_size"):
        from_config(broken)


@given(st.floats(1e6, 1e12), st.floats(1e6, 1e12))
def test_an_estimate_never_shrinks_as_the_count_grows(one: float, other: float) -> None:
    small, large = estimated(min(one, other)), estimated(max(one, other))
    for field in ("parameters", "layers", "hidden", "intermediate", "kv_elements_per_token"):
        assert getattr(small, field) <= getattr(large, field), field
    assert small.lora_parameters(8) <= large.lora_parameters(8)


@pytest.mark.parametrize("name", [n for n, s in CATALOGUE.items() if not s.experts and PUBLISHED[n] > 1])
def test_an_estimate_by_count_is_near_the_real_shape(name: str) -> None:
    real, guess = CATALOGUE[name], estimated(CATALOGUE[name].parameters)
    assert guess.parameters == real.parameters
    # Rather too large than too small: what it decides is whether a run fits.
    assert 0.7 < guess.hidden * guess.layers / (real.hidden * real.layers) < 2.3
