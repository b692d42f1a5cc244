"""Random models of every trainable model type, so small that a test can create them."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

SIZES: Mapping[str, Any] = MappingProxyType(
    {
        "hidden_size": 128, "intermediate_size": 160, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 96, "max_position_embeddings": 256,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    }
)  # fmt: skip
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
TOWER = {
    "hidden_size": 32, "intermediate_size": 56, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": 28, "patch_size": 14, "vision_use_head": False,
}  # fmt: skip
SPECIAL = ("<unknown>", "<begin>", "<end>")
FIRST_CHARACTER = ord("!")
"""The first character of the vocabulary, as a Unicode code point.

The vocabulary has the three special tokens. The other tokens are this character and those that follow it in
Unicode.
"""
WINDOW = 16
"""Size in tokens of the sliding window, in layers that have one."""
_ALTERNATING = {"layer_types": ["sliding_attention", "full_attention"] * 2}

CONFIGS: Mapping[str, tuple[str, dict[str, Any]]] = MappingProxyType(
    {
        "ernie4_5": ("Ernie4_5Config", {}),
        "exaone4": ("Exaone4Config", {"head_dim": None, **_ALTERNATING}),
        "gemma": ("GemmaConfig", {}),
        "gemma2": ("Gemma2Config", _ALTERNATING),
        "gemma3": ("Gemma3Config", {"mm_tokens_per_image": 4}),
        "gemma3_text": ("Gemma3TextConfig", _ALTERNATING),
        "glm": ("GlmConfig", {}),
        "glm4": ("Glm4Config", {}),
        "glm4_moe": ("Glm4MoeConfig", {**EXPERTS, "n_routed_experts": 4, "first_k_dense_replace": 1}),
        "gpt_oss": ("GptOssConfig", {"num_local_experts": 4, **_ALTERNATING}),
        "granite": ("GraniteConfig", {"head_dim": None}),
        "hunyuan_v1_dense": ("HunYuanDenseV1Config", {}),
        "llama": ("LlamaConfig", {}),
        "ministral3": ("Ministral3Config", {}),
        "mistral": ("MistralConfig", {}),
        "mixtral": ("MixtralConfig", {"num_local_experts": 4}),
        "olmo2": ("Olmo2Config", {"head_dim": None}),
        "olmo3": ("Olmo3Config", {"head_dim": None, **_ALTERNATING}),
        "olmoe": ("OlmoeConfig", {"head_dim": None, "num_experts": 4, "num_experts_per_tok": 2}),
        "phi3": ("Phi3Config", {"head_dim": None}),
        "qwen2": ("Qwen2Config", {"head_dim": None, "use_sliding_window": True, "max_window_layers": 2}),
        "qwen2_moe": (
            "Qwen2MoeConfig",
            {
                **EXPERTS, "head_dim": None, "num_experts": 4, "shared_expert_intermediate_size": 56,
                "use_sliding_window": True, "max_window_layers": 2,
            },
        ),
        "qwen3": ("Qwen3Config", {"use_sliding_window": True, "max_window_layers": 2}),
        "qwen3_moe": ("Qwen3MoeConfig", {**EXPERTS, "num_experts": 4, "use_sliding_window": True}),
        "smollm3": ("SmolLM3Config", {"head_dim": None}),
    }
)  # fmt: skip
"""For each model type: the class of its config, and the fields that differ from ``SIZES``."""

_NO_WINDOW = frozenset(
    {
        "ernie4_5",
        "gemma",
        "glm",
        "glm4",
        "glm4_moe",
        "granite",
        "hunyuan_v1_dense",
        "llama",
        "olmo2",
        "olmoe",
        "smollm3",
    }
)
"""Types without a sliding window: their code does not use one, or their published models set none."""


def window_of(model_type: str) -> int | None:
    """Return the size of the type's sliding window in tokens. None: the type has no window."""
    return None if model_type in _NO_WINDOW else WINDOW


def config_of(model_type: str, **fields: Any) -> Any:
    """Return the config of a small model. ``fields`` replace fields of ``CONFIGS``; None removes a field."""
    kind, own = CONFIGS[model_type]
    window = window_of(model_type)
    given = {**SIZES, **({"sliding_window": window} if window else {}), **own, **fields}
    given = {name: value for name, value in given.items() if value is not None}
    if model_type == "gemma3":
        text = {name: value for name, value in given.items() if name != "mm_tokens_per_image"}
        return transformers.Gemma3Config(
            text_config=text | _ALTERNATING, vision_config=TOWER, mm_tokens_per_image=4, image_token_index=90
        )
    return getattr(transformers, kind)(**given)


def write_model(config: Any, folder: Path) -> None:
    """Write a random model and a tokenizer into ``folder``.

    The weights are large, so that the log-probs of different tokens differ clearly.
    """
    torch.manual_seed(0)
    for part in (config, config.get_text_config()):
        part.initializer_range = 0.3
    kind: Any = AutoModelForCausalLM
    kind.from_config(config).save_pretrained(folder)
    words = [
        *SPECIAL,
        *map(chr, range(FIRST_CHARACTER, FIRST_CHARACTER + SIZES["vocab_size"] - len(SPECIAL))),
    ]
    raw = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token=SPECIAL[0]))
    raw.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer: Any = PreTrainedTokenizerFast
    tokenizer(tokenizer_object=raw, eos_token=SPECIAL[2], unk_token=SPECIAL[0]).save_pretrained(folder)
