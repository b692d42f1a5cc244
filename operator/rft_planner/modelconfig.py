"""Reads the shape of a model (layers, widths, heads) from its ``config.json``.

The counts of parameters are for the model classes of ``transformers`` that have the layers ``q/k/v/o_proj``
and ``gate/up/down_proj``. The module ``layouts`` has the differences between model types.

For a quantized checkpoint, the unpacked weights are counted, because peft cannot train packed weights. For
example, ``transformers`` unpacks gpt-oss to bf16 in the trainer, if it has no MXFP4 kernels.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rft_planner.layouts import LAYOUTS, Layout, head_norms
from rft_planner.shapes import Shape


class UnreadableConfig(ValueError):
    """Error: the shape of a model cannot be read from its ``config.json``. The message names the field."""


INSTEAD = "set spec.model.parameters, e.g. 7B"
"""The end of error messages: what the user can do if ``config.json`` cannot be read."""
_UNLIKE = {
    "is_encoder_decoder": "an encoder and a decoder",
    "kv_lora_rank": "latent attention, which has a compressed key-value cache",
    "mamba_d_state": "layers with a state instead of a cache",
    "ssm_state_size": "layers with a state instead of a cache",
    "linear_num_value_heads": "layers with a state instead of a cache",
    "hidden_size_per_layer_input": "an embedding for each layer",
    "num_kv_shared_layers": "layers that share a cache",
    "audio_config": "an audio encoder",
}
"""Fields of ``config.json`` for features that the planner does not support, each with its description."""
_CACHED = {"full_attention", "sliding_attention", "chunked_attention"}


def from_config(config: Mapping[str, Any]) -> Shape:
    """Return the shape of a model: its layers, widths and heads. ``config``: the content of ``config.json``.

    A sliding window counts as full attention, because vLLM never needs more cache for it than for full
    attention.

    Raises:
        UnreadableConfig: a field is missing or not a number, or the model has an unsupported feature.
    """
    text = config.get("text_config")
    if isinstance(text, Mapping):  # the config of a vision model has its text model inside
        config = {**config, **text}
    _refuse_unlike(config)
    layout = _layout(config)
    config = {**layout.defaults, **{name: value for name, value in config.items() if value is not None}}
    hidden, heads = _number(config, "hidden_size"), _number(config, "num_attention_heads")
    shape = Shape(
        layers=_number(config, "num_hidden_layers"),
        hidden=hidden,
        intermediate=_number(config, "intermediate_size"),
        heads=heads,
        kv_heads=_first(config, "num_key_value_heads") or heads,
        head_dim=_first(config, "head_dim") or hidden // heads,
        vocabulary=_number(config, "vocab_size"),
        tied=bool(config.get("tie_word_embeddings", layout.tied)),
        attention_bias=bool(config.get(layout.bias_field or "", layout.bias)),
        context=_first(config, "max_position_embeddings") or 32768,
        fused_attention=layout.fused_attention,
        fused_feed_forward=layout.fused_feed_forward,
        attention_adapters=layout.attention_adapters,
        stored=str(config.get("dtype") or config.get("torch_dtype") or "").removeprefix("torch."),
    )
    if heads % shape.kv_heads:
        raise UnreadableConfig(
            f"config.json: num_key_value_heads: {shape.kv_heads} does not divide num_attention_heads {heads};"
            f" {INSTEAD}"
        )
    if layout.mixture:
        shape = _with_experts(shape, config, layout)
    return replace(shape, extras=_extras(shape, config, layout), beside=_tower(config, hidden))


def _refuse_unlike(config: Mapping[str, Any]) -> None:
    for name, what in _UNLIKE.items():
        if config.get(name):
            raise UnreadableConfig(
                f"config.json: {name}: {config[name]!r} means {what}, which the planner does not support;"
                f" {INSTEAD}"
            )
    others = sorted(set(map(str, config.get("layer_types") or ())) - _CACHED)
    if others:
        raise UnreadableConfig(
            f"config.json: layer_types: {others[0]!r} is not one of {', '.join(sorted(_CACHED))}; {INSTEAD}"
        )


def _layout(config: Mapping[str, Any]) -> Layout:
    name = config.get("model_type")
    name = "gemma3_text" if name == "gemma3" else name
    if not isinstance(name, str) or name not in LAYOUTS:
        raise UnreadableConfig(
            f"config.json: model_type: {name!r} is not one of {', '.join(LAYOUTS)}; {INSTEAD}"
        )
    return LAYOUTS[name]


def _with_experts(shape: Shape, config: Mapping[str, Any], layout: Layout) -> Shape:
    """Return a copy of ``shape`` with the numbers and widths of experts, for a mixture of experts.

    ``config`` is the content of the model's ``config.json``, from which these numbers are read.
    """
    width = _first(config, "moe_intermediate_size") or shape.intermediate
    shared = _count(config, "n_shared_experts") * width
    skipped = config.get("mlp_only_layers") or ()
    step, first = _count(config, "decoder_sparse_step") or 1, _count(config, "first_k_dense_replace")
    dense = sum(index in skipped or (index + 1) % step != 0 or index < first for index in range(shape.layers))
    return replace(
        shape,
        experts=_first(config, *EXPERTS) or _number(config, "num_experts"),
        experts_per_token=_first(config, "num_experts_per_tok", "experts_per_token")
        or _number(config, "num_experts_per_tok"),
        expert_intermediate=width,
        dense_layers=dense,
        shared_intermediate=shared or (_count(config, _SHARED) if layout.shared_gate else 0),
        shared_gate=layout.shared_gate,
    )


def adapts_attention_only(config: Mapping[str, Any]) -> bool:
    """Return whether only the attention of a model can have LoRA adapters, and not its feed-forward part.

    ``config`` is the content of ``config.json``. The result is true for a mixture of experts, because an
    adapter for all experts would be a hundred times as large. It is also true for GLM-4: its gate and up are
    one matrix, for which vLLM loads no adapter.
    """
    layout = LAYOUTS.get(str(config.get("model_type")))
    fused = layout is not None and layout.attention_adapters
    return fused or any(config.get(name) for name in EXPERTS)


EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
"""Fields of ``config.json`` for the number of experts. Which one a model has depends on its type."""
_SHARED = "shared_expert_intermediate_size"


def _extras(shape: Shape, config: Mapping[str, Any], layout: Layout) -> int:
    extras = sum(extra(shape) for extra in layout.extras)
    if config.get(layout.head_norms_field or ""):
        extras += head_norms(shape)
    if config.get(layout.feed_forward_bias_field or ""):
        extras += 2 * shape.intermediate + shape.hidden
    return extras


def _tower(config: Mapping[str, Any], hidden: int) -> int:
    """Return the number of parameters of Gemma 3's SigLIP vision tower and its projector. 0: no tower.

    ``hidden`` is the hidden size of the text model. Each layer of the tower has four projections of the
    attention, two of the feed-forward part, and two norms, all with biases, as in
    ``Gemma3ForConditionalGeneration``.

    Raises:
        UnreadableConfig: the tower is of another type, or a field is missing or not a number.
    """
    vision = config.get("vision_config")
    if not isinstance(vision, Mapping):
        return 0
    if vision.get("model_type") != "siglip_vision_model":
        raise UnreadableConfig(
            f"config.json: vision_config.model_type: {vision.get('model_type')!r} is not siglip_vision_model,"
            f" the only one that the planner supports; {INSTEAD}"
        )
    width, columns = _number(vision, "hidden_size"), _number(vision, "intermediate_size")
    layers, patch = _number(vision, "num_hidden_layers"), _number(vision, "patch_size")
    layer = 4 * (width**2 + width) + 2 * width * columns + columns + width + 4 * width
    patches = (_number(vision, "image_size") // patch) ** 2
    embeddings = 3 * patch**2 * width + width + patches * width
    projector = width * hidden + width
    return layers * layer + embeddings + 2 * width + projector


def _first(config: Mapping[str, Any], *names: str) -> int | None:
    return next((_number(config, name) for name in names if config.get(name) is not None), None)


def _count(config: Mapping[str, Any], name: str) -> int:
    """Return the field ``name`` of ``config.json`` as a whole number, or 0 if it is absent, null or 0."""
    return _number(config, name) if config.get(name) else 0


def _number(config: Mapping[str, Any], name: str) -> int:
    value = config.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UnreadableConfig(
            f"config.json: {name}: {value!r} is not a whole number of 1 or more; {INSTEAD}"
        )
    return value
