"""Which models can be trained: asked by the planner before GPUs are given, and by the trainer.

``make bench-architectures`` proves the list: it trains a small random model of each type, and compares the
trainer's log-probs with the model's own.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any


class Untrainable(ValueError):
    """The model cannot be trained. The message has the field, what was found and what is allowed."""


TRAINABLE: Mapping[str, str] = MappingProxyType(
    {
        "ernie4_5": "Ernie4_5ForCausalLM",
        "exaone4": "Exaone4ForCausalLM",
        "gemma": "GemmaForCausalLM",
        "gemma2": "Gemma2ForCausalLM",
        "gemma3": "Gemma3ForConditionalGeneration",
        "gemma3_text": "Gemma3ForCausalLM",
        "glm": "GlmForCausalLM",
        "glm4": "Glm4ForCausalLM",
        "glm4_moe": "Glm4MoeForCausalLM",
        "gpt_oss": "GptOssForCausalLM",
        "granite": "GraniteForCausalLM",
        "hunyuan_v1_dense": "HunYuanDenseV1ForCausalLM",
        "llama": "LlamaForCausalLM",
        "ministral3": "Ministral3ForCausalLM",
        "mistral": "MistralForCausalLM",
        "mixtral": "MixtralForCausalLM",
        "olmo2": "Olmo2ForCausalLM",
        "olmo3": "Olmo3ForCausalLM",
        "olmoe": "OlmoeForCausalLM",
        "phi3": "Phi3ForCausalLM",
        "qwen2": "Qwen2ForCausalLM",
        "qwen2_moe": "Qwen2MoeForCausalLM",
        "qwen3": "Qwen3ForCausalLM",
        "qwen3_moe": "Qwen3MoeForCausalLM",
        "smollm3": "SmolLM3ForCausalLM",
    }
)
"""By ``model_type``, the class of the checkpoint, which is the one that the trainer loads.

With another class the adapter's names differ from those of vLLM's model. vLLM then loads the adapter without
an error, and samples from the base.
"""

_UNTRAINABLE_FAMILIES = (
    ("llama-4-", "llama4"),
    ("llama-3.2-11b-vision", "mllama"),
    ("llama-3.2-90b-vision", "mllama"),
    ("qwen2-vl-", "qwen2_vl"),
    ("qwen2.5-vl-", "qwen2_5_vl"),
    ("qwen2.5-omni-", "qwen2_5_omni"),
    ("qwen3-vl-", "qwen3_vl"),
    ("qwen3-omni-", "qwen3_omni_moe"),
    ("qwen3-next-", "qwen3_next"),
    ("qwen3.5-", "qwen3_5"),
    ("mistral-small-3.1-", "mistral3"),
    ("mistral-small-3.2-", "mistral3"),
    ("gemma-3n-", "gemma3n"),
    ("gemma-4-", "gemma4"),
    ("deepseek-v2", "deepseek_v2"),
    ("deepseek-v3", "deepseek_v3"),
)
"""Beginnings of repository names, each with the ``model_type`` of its models: for a planner without files."""


def check_trainable(config: Mapping[str, Any], name: str) -> None:
    """Check the ``config.json`` of the model ``name``. Raises Untrainable."""
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in TRAINABLE:
        raise Untrainable(
            f"spec.model.name: {name}: the model_type in its config.json is {kind!r}; {_allowed()}"
        )
    classes = [str(one) for one in config.get("architectures") or ()]
    if classes and TRAINABLE[kind] not in classes:
        raise Untrainable(
            f"spec.model.name: {name}: architectures in its config.json is {', '.join(classes)}; for the"
            f" model_type {kind} it must be {TRAINABLE[kind]}"
        )


def check_name(name: str) -> None:
    """Check a model of which only the name is known. Raises Untrainable for a family that is known."""
    bare = name.rstrip("/").rsplit("/", 1)[-1].lower().removeprefix("meta-")
    for beginning, kind in _UNTRAINABLE_FAMILIES:
        if bare.startswith(beginning):
            raise Untrainable(
                f"spec.model.name: {name}: models of this name have the model_type {kind!r}; {_allowed()}"
            )


def _allowed() -> str:
    return f"allowed: {', '.join(TRAINABLE)}"
