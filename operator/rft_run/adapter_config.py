"""Checks the file ``adapter_config.json`` of an adapter, so that PEFT runs no foreign code when it loads the
adapter.

The file could otherwise name code to import or download. Older releases of PEFT import the module that the
setting ``megatron_core`` names. For an adapter that is not of the type LORA, PEFT may load a tokenizer, and
the tokenizer may run its own code.
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
"""Names of the settings in ``adapter_config.json`` that may have any value: PEFT uses them only as data.
Every other setting except ``auto_mapping`` must be a number, true, false or empty.

``megatron_core`` names a module, but PEFT uses it only if ``megatron_config`` is set. That is refused."""
_LIBRARIES = ("transformers", "peft")


def config_problem(config: Any) -> str | None:
    """Return a message that says why PEFT must not load an adapter, or None if the adapter is safe to load.

    ``config`` is the parsed JSON of the adapter's ``adapter_config.json``.
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
