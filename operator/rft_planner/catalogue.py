"""Shapes of the models people fine-tune, by the repository whose ``config.json`` says the same.

They were written down from what is generally known of these models; only SmolLM2-135M was compared with its
file here. What guards the others is a test: each counts the parameters that its card gives.
"""

import re
from types import MappingProxyType

from rft_planner.shapes import Shape


def _llama(layers: int, hidden: int, intermediate: int, heads: int, *, tied: bool = False) -> Shape:
    head_dim = 64 if hidden == 2048 else 128
    return Shape(layers, hidden, intermediate, heads, 8, head_dim, 128_256, tied=tied, context=131_072)


def _qwen25(
    layers: int, hidden: int, intermediate: int, heads: int, kv: int, *, vocabulary: int = 152_064
) -> Shape:
    tied = vocabulary == 151_936
    head_dim = hidden // heads
    return Shape(
        layers, hidden, intermediate, heads, kv, head_dim, vocabulary, tied=tied, attention_bias=True
    )


def _qwen3(layers: int, hidden: int, intermediate: int, heads: int, *, tied: bool = False) -> Shape:
    return Shape(layers, hidden, intermediate, heads, 8, 128, 151_936, tied=tied, context=40_960)


def _qwen3_moe(layers: int, hidden: int, intermediate: int, heads: int, expert: int) -> Shape:
    return Shape(
        layers, hidden, intermediate, heads, 4, 128, 151_936, context=40_960,
        experts=128, experts_per_token=8, expert_intermediate=expert,
    )  # fmt: skip


def _gemma(
    layers: int, hidden: int, intermediate: int, heads: int, kv: int, head_dim: int,
    vocabulary: int, context: int,
) -> Shape:  # fmt: skip
    return Shape(layers, hidden, intermediate, heads, kv, head_dim, vocabulary, tied=True, context=context)


def _gpt_oss(layers: int, experts: int) -> Shape:
    return Shape(
        layers, 2880, 2880, 64, 8, 64, 201_088, attention_bias=True, context=131_072,
        experts=experts, experts_per_token=4, expert_intermediate=2880,
    )  # fmt: skip


CATALOGUE = MappingProxyType(
    {
        "HuggingFaceTB/SmolLM2-135M": Shape(30, 576, 1536, 9, 3, 64, 49_152, tied=True, context=8192),
        "HuggingFaceTB/SmolLM2-360M": Shape(32, 960, 2560, 15, 5, 64, 49_152, tied=True, context=8192),
        "HuggingFaceTB/SmolLM2-1.7B": Shape(24, 2048, 8192, 32, 32, 64, 49_152, tied=True, context=8192),
        "meta-llama/Llama-3.2-1B": _llama(16, 2048, 8192, 32, tied=True),
        "meta-llama/Llama-3.2-3B": _llama(28, 3072, 8192, 24, tied=True),
        "meta-llama/Llama-3.1-8B": _llama(32, 4096, 14336, 32),
        "meta-llama/Llama-3.1-70B": _llama(80, 8192, 28672, 64),
        "meta-llama/Llama-3.3-70B": _llama(80, 8192, 28672, 64),
        "meta-llama/Llama-3.1-405B": _llama(126, 16384, 53248, 128),
        "Qwen/Qwen2.5-0.5B": _qwen25(24, 896, 4864, 14, 2, vocabulary=151_936),
        "Qwen/Qwen2.5-1.5B": _qwen25(28, 1536, 8960, 12, 2, vocabulary=151_936),
        "Qwen/Qwen2.5-3B": _qwen25(36, 2048, 11008, 16, 2, vocabulary=151_936),
        "Qwen/Qwen2.5-7B": _qwen25(28, 3584, 18944, 28, 4),
        "Qwen/Qwen2.5-14B": _qwen25(48, 5120, 13824, 40, 8),
        "Qwen/Qwen2.5-32B": _qwen25(64, 5120, 27648, 40, 8),
        "Qwen/Qwen2.5-72B": _qwen25(80, 8192, 29568, 64, 8),
        "Qwen/Qwen3-0.6B": _qwen3(28, 1024, 3072, 16, tied=True),
        "Qwen/Qwen3-1.7B": _qwen3(28, 2048, 6144, 16, tied=True),
        "Qwen/Qwen3-4B": _qwen3(36, 2560, 9728, 32, tied=True),
        "Qwen/Qwen3-8B": _qwen3(36, 4096, 12288, 32),
        "Qwen/Qwen3-14B": _qwen3(40, 5120, 17408, 40),
        "Qwen/Qwen3-32B": _qwen3(64, 5120, 25600, 64),
        "Qwen/Qwen3-30B-A3B": _qwen3_moe(48, 2048, 6144, 32, 768),
        "Qwen/Qwen3-235B-A22B": _qwen3_moe(94, 4096, 12288, 64, 1536),
        "mistralai/Mistral-7B-v0.3": Shape(32, 4096, 14336, 32, 8, 128, 32_768),
        "mistralai/Mistral-Nemo-2407": Shape(40, 5120, 14336, 32, 8, 128, 131_072, context=131_072),
        "mistralai/Mistral-Small-24B-2501": Shape(40, 5120, 32768, 32, 8, 128, 131_072),
        "mistralai/Mistral-Large-2407": Shape(88, 12288, 28672, 96, 8, 128, 32_768, context=131_072),
        "mistralai/Mixtral-8x7B-v0.1": Shape(
            32, 4096, 14336, 32, 8, 128, 32_000, experts=8, experts_per_token=2, expert_intermediate=14336
        ),
        "google/gemma-2-2b": _gemma(26, 2304, 9216, 8, 4, 256, 256_000, 8192),
        "google/gemma-2-9b": _gemma(42, 3584, 14336, 16, 8, 256, 256_000, 8192),
        "google/gemma-2-27b": _gemma(46, 4608, 36864, 32, 16, 128, 256_000, 8192),
        "google/gemma-3-1b": _gemma(26, 1152, 6912, 4, 1, 256, 262_144, 32_768),
        "google/gemma-3-4b": _gemma(34, 2560, 10240, 8, 4, 256, 262_208, 131_072),
        "google/gemma-3-12b": _gemma(48, 3840, 15360, 16, 8, 256, 262_208, 131_072),
        "google/gemma-3-27b": _gemma(62, 5376, 21504, 32, 16, 128, 262_208, 131_072),
        "microsoft/Phi-3.5-mini": Shape(32, 3072, 8192, 32, 32, 96, 32_064, context=131_072),
        "microsoft/Phi-4-mini": Shape(32, 3072, 8192, 24, 8, 128, 200_064, tied=True, context=131_072),
        "microsoft/phi-4": Shape(40, 5120, 17920, 40, 10, 128, 100_352, context=16_384),
        "openai/gpt-oss-20b": _gpt_oss(24, 32),
        "openai/gpt-oss-120b": _gpt_oss(36, 128),
    }
)
"""Shape by the repository of the base model."""

_SUFFIX = re.compile(
    r"-(instruct|chat|it|base|pt|hf|bf16|unsloth|v\d+(\.\d+)?|\d{4}|thinking|reasoning)$", re.IGNORECASE
)


def _key(name: str) -> str:
    """Fold what variants of one shape differ in: owner, case, and endings such as ``-Instruct``."""
    key = name.rstrip("/").rsplit("/", 1)[-1].lower()
    while (shorter := _SUFFIX.sub("", key)) != key:
        key = shorter
    return key.removeprefix("meta-")


_BY_KEY = {_key(name): name for name in CATALOGUE}


def known(name: str) -> str | None:
    """Return the catalogue's name for a model, path or variant; ``None`` where it is not in it."""
    return _BY_KEY.get(_key(name))


def shape_of(name: str) -> Shape | None:
    """Return the catalogue's shape for a model name, path or variant."""
    found = known(name)
    return CATALOGUE[found] if found is not None else None
