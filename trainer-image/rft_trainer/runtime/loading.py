"""Loads base models, tokenizers and adapters so that trainer and sampler compute the same log-probs.

Three things could make the log-probs differ. This module handles them:

- attention with parts that torch's ``sdpa`` does not compute
- dropout and other noise for training
- a rotary embedding that depends on the longest row of a batch
"""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from rft_run import run_files
from rft_run.adapter_config import config_problem
from rft_run.folder import adapter_config_of, adapter_weights_of

_NOISE = ("dropout", "pdrop", "jitter")
_LONGROPE = "longrope"
_loading = threading.Lock()
"""Lock that allows only one thread at a time to load a model.

While transformers loads a model, it replaces methods of its own classes and torch's default dtype. If two
threads load at the same time, tied weights can stay untied, in these models and in all later ones.
"""


def load_base(folder: Path, dtype: torch.dtype, context: int | None = None, *, weights: bool = True) -> Any:
    """Load the base model in ``folder``. Raises OSError and ValueError if the folder has no usable model.

    Several threads may call this function. Then one model is loaded after another.

    - ``context``: length of the run's longest sequence, in tokens. None: the model's context length.
    - ``weights``: whether to load the weights into host memory. If false, the model is on torch's meta
      device.
    """
    config: Any = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    _silence(config)
    kind: Any = AutoModelForCausalLM
    chosen = {"dtype": dtype, "attn_implementation": attention_implementation(config)}
    if weights:
        refuse_pickles(folder)
    with _loading:
        if weights:
            model = kind.from_pretrained(
                folder, config=config, use_safetensors=True, trust_remote_code=False, **chosen
            )
        else:
            with torch.device("meta"):
                model = kind.from_config(config, trust_remote_code=False, **chosen)
    _fix_longrope(model, context or getattr(config.get_text_config(), "max_position_embeddings", None) or 0)
    return model


def refuse_pickles(folder: Path) -> None:
    """Raise ValueError if the model in ``folder`` has weights only in pickles, such as ``pytorch_model.bin``.

    A pickle can run code.
    """
    pickles = sorted(file.name for kind in ("*.bin", "*.pt", "*.pth") for file in folder.glob(kind))
    if pickles and not any(folder.glob("*.safetensors")):
        raise ValueError(
            f"its weights are in the pickle {pickles[0]}. A pickle can run code, so it is not loaded. If you"
            " trust the pickle, convert it once: load the model with transformers and write it with"
            " save_pretrained"
        )


def load_tokenizer(folder: Path) -> Any:
    """Load the tokenizer of the model in ``folder``. Raises OSError or ValueError if there is none."""
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def load_adapter(base: Any, adapter: Path, *, trainable: bool = False) -> Any:
    """Load a LoRA adapter, and return a PEFT model of ``base`` with this adapter.

    ``adapter``: the folder of the adapter. ``trainable``: whether the adapter's weights get gradients. Raises
    OSError and ValueError if the adapter cannot be loaded.
    """
    check_adapter(adapter)
    return PeftModel.from_pretrained(base, str(adapter), is_trainable=trainable)


def check_adapter(adapter: Path) -> None:
    """Check that the LoRA adapter in a folder can be loaded safely. Raises ValueError or OSError if not.

    Refused are an adapter that could run code, and an adapter without a safetensors file. Without this file
    PEFT would look for a pickle, and then for a model of this name on the hub.
    """
    file = adapter_config_of(adapter)
    try:
        problem = config_problem(run_files.json_value(run_files.content(file, follow=True)))
    except ValueError as error:
        problem = str(error)
    if problem is not None:
        raise ValueError(f"{file.name}: {problem}")
    if not (weights := adapter_weights_of(adapter)).is_file():
        raise ValueError(
            f"has no {weights.name}. Weights in another file are not loaded, because a pickle such as"
            " adapter_model.bin can run code: write the adapter again with PEFT's save_pretrained"
        )


def attention_implementation(config: Any) -> str:
    """Return the name of the attention implementation of transformers for a model with this ``config``.

    It is "eager" for attention with soft capping of logits or with sinks, because "sdpa" does not compute
    these. For all other models it is "sdpa".
    """
    text = config.get_text_config()
    if getattr(text, "attn_logit_softcapping", None):
        return "eager"
    supported = getattr(_model_class(config), "_supports_sdpa", True)
    return "sdpa" if supported else "eager"


def _model_class(config: Any) -> Any:
    mapping: Any = AutoModelForCausalLM._model_mapping
    return mapping.get(type(config), None)


def _silence(config: Any) -> None:
    """Set dropout and router jitter in a model's ``config`` to 0.

    With this noise, log-probs in the trainer would differ from those in the sampler.
    """
    for part in {id(part): part for part in (config, config.get_text_config())}.values():
        for name in _noisy(part):
            setattr(part, name, 0.0)


def _noisy(config: Any) -> Iterator[str]:
    for name, value in list(vars(config).items()):
        if any(word in name for word in _NOISE) and isinstance(value, float) and value:
            yield name


def _fix_longrope(model: Any, context: int) -> None:
    """Fix the factors of the rotary embedding LongRoPE by the run's context length, as vLLM does.

    By default, transformers chooses the factors in every forward pass by the length of the longest row. So a
    longer text in the same batch would change the log-probs of a text. ``context``: the length of the run's
    longest sequence, in tokens. A model without LongRoPE stays unchanged.
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
