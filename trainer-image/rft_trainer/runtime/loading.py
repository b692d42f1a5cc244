"""Loads the base model so that trainer and sampler compute the same log-probs.

Three properties of a model would make them differ: attention with parts that ``sdpa`` does not compute,
dropout and other noise for training, and a rotary embedding that depends on the longest row of a batch.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

_NOISE = ("dropout", "pdrop", "jitter")
_LONGROPE = "longrope"


def load_base(folder: Path, dtype: torch.dtype, context: int | None = None, *, weights: bool = True) -> Any:
    """Return the model in ``folder``, in host memory. Without ``weights`` it is on torch's meta device.

    ``context``: length of the run's longest sequence, in tokens. None: the model's context length. Raises
    OSError and ValueError where the folder has no model.
    """
    config: Any = AutoConfig.from_pretrained(folder)
    _silence(config)
    kind: Any = AutoModelForCausalLM
    chosen = {"dtype": dtype, "attn_implementation": attention_implementation(config)}
    if weights:
        model = kind.from_pretrained(folder, config=config, **chosen)
    else:
        with torch.device("meta"):
            model = kind.from_config(config, **chosen)
    _fix_longrope(model, context or getattr(config.get_text_config(), "max_position_embeddings", None) or 0)
    return model


def attention_implementation(config: Any) -> str:
    """Return "sdpa", or "eager" for attention with logit soft capping or sinks, which sdpa lacks."""
    text = config.get_text_config()
    if getattr(text, "attn_logit_softcapping", None):
        return "eager"
    supported = getattr(_model_class(config), "_supports_sdpa", True)
    return "sdpa" if supported else "eager"


def _model_class(config: Any) -> Any:
    mapping: Any = AutoModelForCausalLM._model_mapping
    return mapping.get(type(config), None)


def _silence(config: Any) -> None:
    """Set dropout and router jitter to 0. With them the trainer's policy would differ from the sampler's."""
    for part in {id(part): part for part in (config, config.get_text_config())}.values():
        for name in _noisy(part):
            setattr(part, name, 0.0)


def _noisy(config: Any) -> Iterator[str]:
    for name, value in list(vars(config).items()):
        if any(word in name for word in _NOISE) and isinstance(value, float) and value:
            yield name


def _fix_longrope(model: Any, context: int) -> None:
    """Choose LongRoPE's factors by the run's context length, as vLLM does.

    transformers chooses them in every forward pass by the longest row. Then the log-probs of a text would
    change if a longer text is in the same batch.
    """
    for module in model.modules():
        if getattr(module, "rope_type", None) != _LONGROPE:
            continue
        original = module.config.rope_parameters["original_max_position_embeddings"]
        if context > original:
            frequencies, module.attention_scaling = ROPE_INIT_FUNCTIONS[_LONGROPE](
                module.config, module.inv_freq.device, seq_len=original + 1
            )
            module.register_buffer("inv_freq", frequencies, persistent=False)
        module.rope_type = "default"  # the code that updates the frequencies leaves this type alone
