"""Checks that the configuration of an adapter has only data, and names nothing that PEFT would import or
download.

Older releases of PEFT import the module that ``megatron_core`` names. If an adapter is not a LoRA adapter,
PEFT may load a tokenizer, and the tokenizer may run code of its own.
"""

import json
from typing import Any

_DATA = frozenset({
    "alora_invocation_tokens", "alpha_pattern", "arrow_config", "base_model_name_or_path", "bias",
    "corda_config", "eva_config", "exclude_modules", "init_lora_weights", "layer_replication",
    "layers_pattern", "layers_to_transform", "loftq_config", "lora_ga_config", "megatron_core",
    "modules_to_save", "peft_type", "peft_version", "rank_pattern", "revision", "target_modules",
    "target_parameters", "task_type", "trainable_token_indices",
})  # fmt: skip
"""Settings of LoRA that may be texts, lists or objects, because PEFT uses them only as data.
``megatron_core`` is one of these settings: PEFT reads it only if ``megatron_config`` is set."""
_LIBRARIES = ("transformers", "peft")


def config_problem(config: Any) -> str | None:
    """Return why an adapter must not be loaded, or None if it may be loaded.

    ``config`` is the JSON value in the adapter's configuration file.
    """
    if not isinstance(config, dict):
        return "is not a JSON object"
    if (kind := config.get("peft_type", "LORA")) != "LORA":
        return f"peft_type is {_shown(kind)}, and only adapters of the type LORA are loaded"
    named = next((name for name, value in config.items() if not _is_data(name, value)), None)
    if named is None:
        return None
    return (
        f"{named} is {_shown(config[named])}: an adapter is loaded only if its settings are numbers or names"
        f" of layers: other settings can name code; if the adapter works without {named}, set it to null"
    )


def _is_data(name: str, value: Any) -> bool:
    if name == "auto_mapping" and isinstance(value, dict):  # PEFT writes the base model's class there
        return str(value.get("parent_library")).split(".")[0] in _LIBRARIES
    return name in _DATA or not value or isinstance(value, bool | int | float)


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
