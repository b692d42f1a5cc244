"""Lists the types of models (``model_type``) that can be trained, and checks whether a model has such a type.

The planner checks the model of a job, and the trainer checks it again. ``make bench-architectures`` tests
each type: it trains a small random model, and compares the trainer's log-probs with those of the model
itself.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any


class Untrainable(ValueError):
    """Error: a model cannot be trained, because its type or class is not supported. The message says why."""


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
"""The class of ``transformers`` that the trainer loads for each ``model_type``. If a model's ``config.json``
has a list ``architectures``, this class must be in it.

With another class, the adapter's weights would have other names than in vLLM's model. vLLM would load the
adapter without an error, but ignore its weights and sample from the base model.
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
"""Prefixes of model names, each with a ``model_type`` that cannot be trained. The planner uses them to check
a model if it has only the model's name, and no ``config.json``."""


def check_trainable(config: Mapping[str, Any], name: str) -> None:
    """Check the type and the classes in a model's ``config.json``. Raise an error if they are not supported.

    ``config`` is the content of ``config.json``. ``name`` is the model's name, for the error message.

    Raises:
        Untrainable: the model cannot be trained.
    """
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
    """Check a model only by its name. Raise an error if the name is that of an unsupported family of models.

    ``name`` is a hub name or path, such as ``Qwen/Qwen2-VL-7B``. A model with an unknown name passes.

    Raises:
        Untrainable: models with this name cannot be trained.
    """
    bare = name.rstrip("/").rsplit("/", 1)[-1].lower().removeprefix("meta-")
    for beginning, kind in _UNTRAINABLE_FAMILIES:
        if bare.startswith(beginning):
            raise Untrainable(
                f"spec.model.name: {name}: models of this name have the model_type {kind!r}; {_allowed()}"
            )


def _allowed() -> str:
    return f"allowed: {', '.join(TRAINABLE)}"
