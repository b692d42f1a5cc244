"""The catalogue of models: the shape of each model, by the name of its repository on the Hugging Face hub.

The shape of a model is its number of layers, its widths, its heads, its vocabulary and its context length.
Almost every number was compared, in November 2026, with one of these sources:

- ``litgpt/config.py`` of Lightning-AI/litgpt, commit 2685705. It has SmolLM2; Llama, also Nemotron and the
  DeepSeek models based on Llama; Qwen2.5, also Coder, Math and QwQ; Qwen3, also its mixtures of experts,
  30B-A3B-Base and the 2507 versions; Mistral 7B and Large; Mixtral; Gemma 2 and 3; OLMo 2; Phi, but not Phi-3
  medium.
- public copies of a ``config.json`` that name their origin. There were copies for Qwen2.5 7B and 72B, with
  the contexts of base and Instruct; the DeepSeek models based on Qwen; Qwen3 8B; Qwen3-Coder; Mistral Nemo,
  Small and Large; Ministral; Gemma 3 4B and 12B with their vision towers; Phi-3 medium, phi-4 and Phi-4-mini;
  OLMo 2; GLM-4; gpt-oss; SmolLM3 (only its context).
- the default values of ``transformers`` 5.19, which are the numbers of SmolLM3 3B, GLM-4 9B and gpt-oss-120b.

These numbers were not compared with any source:

- the contexts of Phi-3.5-mini, Gemma 3 1B and the smaller Qwen3 base models
- the vision tower of Gemma 3 27B, which is assumed to be that of 4B and 12B

In two cases litgpt has other numbers than the ``config.json`` of a model. This catalogue then has the numbers
of ``config.json``:

- litgpt rounds the vocabulary of Gemma 3, which is 262,208.
- litgpt has other contexts for Phi-3.5-mini, Gemma 3 1B, Mistral 7B v0.1, Mistral Large and Qwen2.5's
  instruct models.

A test compares the parameter count of each entry with the one on its model card.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from rft_planner.modelconfig import from_config
from rft_planner.shapes import Shape


def _shape(
    model_type: str, layers: int, hidden: int, intermediate: int, heads: int, kv_heads: int, vocabulary: int,
    context: int, **fields: object,
) -> Shape:  # fmt: skip
    config = {
        "model_type": model_type,
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocabulary,
        "max_position_embeddings": context,
    }
    return from_config(config | fields)


def _llama(
    layers: int, hidden: int, intermediate: int, heads: int, *, tied: bool = False, context: int = 131_072
) -> Shape:
    return _shape("llama", layers, hidden, intermediate, heads, 8, 128_256, context, tie_word_embeddings=tied)


def _smollm2(layers: int, hidden: int, intermediate: int, heads: int, kv: int) -> Shape:
    return _shape("llama", layers, hidden, intermediate, heads, kv, 49_152, 8192, tie_word_embeddings=True)


def _qwen25(layers: int, hidden: int, intermediate: int, heads: int, kv: int) -> Shape:
    small = hidden <= 2048  # small models tie the output layer and pad the vocabulary less
    vocabulary = 151_936 if small else 152_064
    return _shape(
        "qwen2", layers, hidden, intermediate, heads, kv, vocabulary, 32_768, tie_word_embeddings=small
    )


def _qwen3(layers: int, hidden: int, intermediate: int, heads: int, *, tied: bool = False) -> Shape:
    return _shape("qwen3", layers, hidden, intermediate, heads, 8, 151_936, 40_960, tie_word_embeddings=tied)


def _qwen3_moe(layers: int, hidden: int, intermediate: int, heads: int, expert: int) -> Shape:
    return _shape(
        "qwen3_moe", layers, hidden, intermediate, heads, 4, 151_936, 40_960, head_dim=128,
        num_experts=128, num_experts_per_tok=8, moe_intermediate_size=expert,
    )  # fmt: skip


def _mistral(
    layers: int, hidden: int, intermediate: int, heads: int, vocabulary: int = 131_072, context: int = 32_768
) -> Shape:
    return _shape("mistral", layers, hidden, intermediate, heads, 8, vocabulary, context, head_dim=128)


def _gemma2(layers: int, hidden: int, intermediate: int, heads: int, kv: int, head_dim: int = 256) -> Shape:
    return _shape("gemma2", layers, hidden, intermediate, heads, kv, 256_000, 8192, head_dim=head_dim)


_GEMMA_TOWER = {
    "model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304,
    "num_hidden_layers": 27, "image_size": 896, "patch_size": 14,
}  # fmt: skip


def _gemma3(layers: int, hidden: int, intermediate: int, heads: int, kv: int, head_dim: int = 256) -> Shape:
    return _shape(
        "gemma3_text", layers, hidden, intermediate, heads, kv, 262_208, 131_072, head_dim=head_dim,
        vision_config=_GEMMA_TOWER,
    )  # fmt: skip


def _phi(
    layers: int, hidden: int, intermediate: int, heads: int, kv: int, vocabulary: int, context: int, *,
    tied: bool = False,
) -> Shape:  # fmt: skip
    return _shape(
        "phi3", layers, hidden, intermediate, heads, kv, vocabulary, context, tie_word_embeddings=tied
    )


def _gpt_oss(layers: int, experts: int) -> Shape:
    return _shape(
        "gpt_oss", layers, 2880, 2880, 64, 8, 201_088, 131_072,
        num_local_experts=experts, num_experts_per_tok=4,
    )  # fmt: skip


def _each(name: str, shapes: Mapping[str, Shape], context: int) -> dict[str, Shape]:
    """Return the shapes of a family of models by model name, all with a context of ``context`` tokens.

    The keys of ``shapes`` are sizes such as 8B. ``name`` has {} in place of the size: ``Qwen/Qwen3-{}`` gives
    the model name ``Qwen/Qwen3-8B``.
    """
    return {name.format(size): replace(shape, context=context) for size, shape in shapes.items()}


_LLAMA = {
    "1B": _llama(16, 2048, 8192, 32, tied=True),
    "3B": _llama(28, 3072, 8192, 24, tied=True),
    "8B": _llama(32, 4096, 14336, 32),
    "70B": _llama(80, 8192, 28672, 64),
    "405B": _llama(126, 16384, 53248, 128),
}
_QWEN25 = {
    "0.5B": _qwen25(24, 896, 4864, 14, 2),
    "1.5B": _qwen25(28, 1536, 8960, 12, 2),
    "3B": _qwen25(36, 2048, 11008, 16, 2),
    "7B": _qwen25(28, 3584, 18944, 28, 4),
    "14B": _qwen25(48, 5120, 13824, 40, 8),
    "32B": _qwen25(64, 5120, 27648, 40, 8),
    "72B": _qwen25(80, 8192, 29568, 64, 8),
}
_QWEN3 = {
    "0.6B": _qwen3(28, 1024, 3072, 16, tied=True),
    "1.7B": _qwen3(28, 2048, 6144, 16, tied=True),
    "4B": _qwen3(36, 2560, 9728, 32, tied=True),
    "8B": _qwen3(36, 4096, 12288, 32),
    "14B": _qwen3(40, 5120, 17408, 40),
    "30B-A3B": _qwen3_moe(48, 2048, 6144, 32, 768),
    "32B": _qwen3(64, 5120, 25600, 64),
    "235B-A22B": _qwen3_moe(94, 4096, 12288, 64, 1536),
}


def _some(shapes: Mapping[str, Shape], *sizes: str) -> dict[str, Shape]:
    return {size: shapes[size] for size in sizes}


CATALOGUE = MappingProxyType(
    {
        "HuggingFaceTB/SmolLM2-135M": _smollm2(30, 576, 1536, 9, 3),
        "HuggingFaceTB/SmolLM2-360M": _smollm2(32, 960, 2560, 15, 5),
        "HuggingFaceTB/SmolLM2-1.7B": _smollm2(24, 2048, 8192, 32, 32),
        "HuggingFaceTB/SmolLM3-3B": _shape("smollm3", 36, 2048, 11008, 16, 4, 128_256, 65_536),
        **_each("meta-llama/Meta-Llama-3-{}", _some(_LLAMA, "8B", "70B"), 8192),
        **_each("meta-llama/Llama-3.1-{}", _some(_LLAMA, "8B", "70B", "405B"), 131_072),
        **_each("meta-llama/Llama-3.2-{}", _some(_LLAMA, "1B", "3B"), 131_072),
        "meta-llama/Llama-3.3-70B": _LLAMA["70B"],
        "nvidia/Llama-3.1-Nemotron-70B-Instruct-HF": _LLAMA["70B"],
        **_each("deepseek-ai/DeepSeek-R1-Distill-Llama-{}", _some(_LLAMA, "8B", "70B"), 131_072),
        **_each("Qwen/Qwen2.5-{}", _some(_QWEN25, "0.5B", "3B"), 32_768),
        **_each("Qwen/Qwen2.5-{}", _some(_QWEN25, "1.5B", "7B", "14B", "32B", "72B"), 131_072),
        **_each("Qwen/Qwen2.5-{}-Instruct", _QWEN25, 32_768),
        **_each("Qwen/Qwen2.5-Coder-{}", _some(_QWEN25, "0.5B", "1.5B", "3B", "7B", "14B", "32B"), 32_768),
        **_each("Qwen/Qwen2.5-Math-{}", _some(_QWEN25, "1.5B", "7B", "72B"), 4096),
        "Qwen/QwQ-32B": replace(_QWEN25["32B"], context=131_072),
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": replace(_QWEN25["1.5B"], tied=False, context=131_072),
        **_each("deepseek-ai/DeepSeek-R1-Distill-Qwen-{}", _some(_QWEN25, "7B", "14B", "32B"), 131_072),
        **_each("Qwen/Qwen3-{}", _QWEN3, 40_960),
        **_each("Qwen/Qwen3-{}-Base", _some(_QWEN3, "0.6B", "1.7B", "4B", "8B", "14B", "30B-A3B"), 32_768),
        **_each("Qwen/Qwen3-{}-Instruct-2507", _some(_QWEN3, "4B", "30B-A3B", "235B-A22B"), 262_144),
        "Qwen/Qwen3-Coder-30B-A3B": replace(_QWEN3["30B-A3B"], intermediate=5472, context=262_144),
        "deepseek-ai/DeepSeek-R1-0528-Qwen3-8B": replace(_QWEN3["8B"], context=131_072),
        "mistralai/Mistral-7B-v0.1": _mistral(32, 4096, 14336, 32, 32_000),
        "mistralai/Mistral-7B-v0.2": _mistral(32, 4096, 14336, 32, 32_000),
        "mistralai/Mistral-7B-v0.3": _mistral(32, 4096, 14336, 32, 32_768),
        "mistralai/Ministral-8B-2410": _mistral(36, 4096, 12288, 32),
        "mistralai/Mistral-Nemo-2407": _mistral(40, 5120, 14336, 32, context=131_072),
        "mistralai/Mistral-Small-2409": _mistral(56, 6144, 16384, 48, 32_768),
        "mistralai/Mistral-Small-24B-2501": _mistral(40, 5120, 32768, 32),
        "mistralai/Mistral-Large-2407": _mistral(88, 12288, 28672, 96, 32_768, 131_072),
        "mistralai/Mistral-Large-2411": _mistral(88, 12288, 28672, 96, 32_768, 131_072),
        "mistralai/Mixtral-8x7B-v0.1": _shape(
            "mixtral", 32, 4096, 14336, 32, 8, 32_000, 32_768, num_local_experts=8, num_experts_per_tok=2
        ),
        "google/gemma-2-2b": _gemma2(26, 2304, 9216, 8, 4),
        "google/gemma-2-9b": _gemma2(42, 3584, 14336, 16, 8),
        "google/gemma-2-27b": _gemma2(46, 4608, 36864, 32, 16, 128),
        "google/gemma-3-1b": _shape("gemma3_text", 26, 1152, 6912, 4, 1, 262_144, 32_768),
        "google/gemma-3-4b": _gemma3(34, 2560, 10240, 8, 4),
        "google/gemma-3-12b": _gemma3(48, 3840, 15360, 16, 8),
        "google/gemma-3-27b": _gemma3(62, 5376, 21504, 32, 16, 128),
        "microsoft/Phi-3-mini-4k": _phi(32, 3072, 8192, 32, 32, 32_064, 4096),
        "microsoft/Phi-3-mini-128k": _phi(32, 3072, 8192, 32, 32, 32_064, 131_072),
        "microsoft/Phi-3-medium-4k": _phi(40, 5120, 17920, 40, 10, 32_064, 4096),
        "microsoft/Phi-3.5-mini": _phi(32, 3072, 8192, 32, 32, 32_064, 131_072),
        "microsoft/Phi-4-mini": _phi(32, 3072, 8192, 24, 8, 200_064, 131_072, tied=True),
        "microsoft/phi-4": _phi(40, 5120, 17920, 40, 10, 100_352, 16_384),
        "microsoft/Phi-4-reasoning": _phi(40, 5120, 17920, 40, 10, 100_352, 32_768),
        "microsoft/Phi-4-reasoning-plus": _phi(40, 5120, 17920, 40, 10, 100_352, 32_768),
        "allenai/OLMo-2-1124-7B": _shape("olmo2", 32, 4096, 11008, 32, 32, 100_352, 4096),
        "allenai/OLMo-2-1124-13B": _shape("olmo2", 40, 5120, 13824, 40, 40, 100_352, 4096),
        "THUDM/glm-4-9b-hf": _shape("glm", 40, 4096, 13696, 32, 2, 151_552, 131_072),
        "THUDM/GLM-4-9B-0414": _shape("glm4", 40, 4096, 13696, 32, 2, 151_552, 32_768),
        "THUDM/GLM-4-32B-0414": _shape(
            "glm4", 61, 6144, 23040, 48, 2, 151_552, 32_768, attention_bias=False
        ),
        "openai/gpt-oss-20b": _gpt_oss(24, 32),
        "openai/gpt-oss-120b": _gpt_oss(36, 128),
    }
)  # fmt: skip
"""Shape of each model, by the name of the model's repository on the Hugging Face hub."""

_VARIANTS = {"instruct", "chat", "it", "base", "pt", "hf", "bf16", "unsloth", "thinking", "reasoning"}
"""Words in model names that do not change the shape of the model."""


def bare_name(name: str) -> str:
    """Return the last part of a hub name or path, in lower case: ``Qwen/Qwen3-8B`` gives ``qwen3-8b``."""
    return name.rstrip("/").rsplit("/", 1)[-1].lower()


def _key(name: str) -> str:
    """Return a key that is equal for all variants of a model with the same shape.

    It is the name in lower case, without the owner and words such as ``-Instruct``: for
    ``meta-llama/Llama-3.1-8B-Instruct`` it is ``llama-3.1-8b``. Numbers stay in the key, because another
    version or date can have another shape. For example, the shapes of Mistral 7B v0.1 and v0.3 differ.
    """
    words = bare_name(name).removeprefix("meta-").split("-")
    return "-".join(word for word in words if word not in _VARIANTS)


_BY_NAME = {bare_name(name): name for name in CATALOGUE}
_BY_KEY = {_key(name): name for name in reversed(CATALOGUE)}


def known(name: str) -> str | None:
    """Return the name under which the catalogue has a model, or ``None`` if it does not have the model.

    ``name`` is a hub name or a path. It may be that of a variant: ``unsloth/Llama-3.1-8B-Instruct`` gives
    ``meta-llama/Llama-3.1-8B``.
    """
    return _BY_NAME.get(bare_name(name)) or _BY_KEY.get(_key(name))


def shape_of(name: str) -> Shape | None:
    """Return the shape of a model: its layers, widths and heads. Return ``None`` for an unknown model.

    ``name`` is the model's hub name or path. It may be that of a variant such as ``-Instruct``.
    """
    found = known(name)
    return CATALOGUE[found] if found is not None else None
