"""The shape of a transformer: what its weights, its cache and its layers measure.

Every count is of one parameter or one element; bytes are the caller's. Formulas follow the model classes of
``transformers``, whose layers are ``q/k/v/o_proj`` and ``gate/up/down_proj``; what differs between them is in
``layouts``. A checkpoint that is published quantized has the count of its weights as they are multiplied:
``transformers`` unpacks gpt-oss (MXFP4) to the trainer's bf16 where no MXFP4 kernels are installed, and peft
cannot train it otherwise.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rft_planner.layouts import LAYOUTS, Layout, head_norms


@dataclass(frozen=True)
class Shape:
    """A decoder-only transformer with grouped-query attention and gated feed-forward layers.

    ``intermediate`` is the width of a dense layer's feed-forward part. A mixture has ``experts`` of width
    ``expert_intermediate`` instead, of which a token takes ``experts_per_token``, except in its
    ``dense_layers``.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool = False
    """Whether the output layer is the embedding."""
    attention_bias: bool = False
    """Whether q, k and v have a bias."""
    context: int = 32768
    """Longest sequence in tokens that the model was made for."""
    extras: int = 0
    """Parameters of one layer beyond its matrices, two norms and the biases of q, k and v."""
    fused_attention: bool = False
    """Whether q, k and v are one matrix, which takes one adapter."""
    fused_feed_forward: bool = False
    """Whether gate and up are one matrix, which takes one adapter."""
    experts: int = 0
    experts_per_token: int = 0
    expert_intermediate: int = 0
    dense_layers: int = 0
    shared_intermediate: int = 0
    """Width of what every token takes of a mixture's layer besides its experts."""
    shared_gate: bool = False
    beside: int = 0
    """Parameters beside the text model: a tower that sees, and its projector."""
    stated: int = 0
    """Parameters in all where the count is known and the rest is estimated from it."""
    stored: str = field(default="", compare=False)
    """Type in which the checkpoint has its weights, e.g. bfloat16; empty: not known."""

    @property
    def attention_parameters(self) -> int:
        """Parameters of one layer's attention: q and o are hidden × heads·d, k and v hidden × kv_heads·d."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        bias = q + 2 * kv if self.attention_bias else 0
        return 2 * self.hidden * q + 2 * self.hidden * kv + bias

    @property
    def feed_forward_parameters(self) -> int:
        """Parameters of one layer's gate, up and down; in a mixture, of experts, router and shared part."""
        if not self.experts:
            return 3 * self.hidden * self.intermediate
        columns = self.experts * self.expert_intermediate + self.shared_intermediate
        return 3 * self.hidden * columns + self.hidden * (self.experts + self.shared_gate)

    @property
    def layer_parameters(self) -> int:
        """Parameters of one layer, its two norms included; of a mixture, of one with experts."""
        return self.attention_parameters + self.feed_forward_parameters + 2 * self.hidden + self.extras

    @property
    def embedding_parameters(self) -> int:
        """Parameters of the embedding alone; an output layer of its own has as many."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """All parameters."""
        if self.stated:
            return self.stated
        embeddings = self.embedding_parameters * (1 if self.tied else 2)
        layers = self.layers * self.layer_parameters
        if self.dense_layers:
            dense = 3 * self.hidden * self.intermediate
            layers -= self.dense_layers * (self.feed_forward_parameters - dense)
        return embeddings + layers + self.hidden + self.beside

    @property
    def active_parameters(self) -> int:
        """Parameters that one token is multiplied with: of the experts only those it takes."""
        idle = self.expert_layers * (self.experts - self.experts_per_token)
        return self.parameters - idle * 3 * self.hidden * self.expert_intermediate

    @property
    def expert_layers(self) -> int:
        """Layers with experts."""
        return self.layers - self.dense_layers if self.experts else 0

    @property
    def kv_elements_per_token(self) -> int:
        """Elements of the key-value cache of one token, all layers: 2 · kv_heads · d each."""
        return self.layers * 2 * self.kv_heads * self.head_dim

    def lora_parameters(self, rank: int, *, feed_forward: bool = True) -> int:
        """Parameters of an adapter: rank · (in + out) for every adapted matrix (Hu et al. 2021, section 4.1).

        Without ``feed_forward``, and in a mixture, only the attention's projections are adapted.
        """
        widths = self._attention_widths
        if feed_forward and not self.experts:
            widths += self._feed_forward_widths
        return self.layers * rank * widths

    @property
    def _attention_widths(self) -> int:
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        inputs = self.hidden * (1 if self.fused_attention else 3)
        return inputs + q + 2 * kv + q + self.hidden

    @property
    def _feed_forward_widths(self) -> int:
        inputs = self.hidden * (1 if self.fused_feed_forward else 2)
        return inputs + 2 * self.intermediate + self.intermediate + self.hidden


class UnreadableConfig(ValueError):
    """A ``config.json`` that does not describe a shape known here; the message names the field."""


INSTEAD = "set spec.model.parameters, e.g. 7B"
_UNLIKE = {
    "is_encoder_decoder": "an encoder and a decoder",
    "kv_lora_rank": "latent attention, whose cache is compressed",
    "mamba_d_state": "layers with a state instead of a cache",
    "ssm_state_size": "layers with a state instead of a cache",
    "linear_num_value_heads": "layers with a state instead of a cache",
    "hidden_size_per_layer_input": "an embedding for each layer",
    "num_kv_shared_layers": "layers that share a cache",
    "audio_config": "a part that hears",
}
"""What a shape does not describe, by the field that says so."""
_CACHED = {"full_attention", "sliding_attention", "chunked_attention"}


def from_config(config: Mapping[str, Any]) -> Shape:
    """Return the shape that a model's ``config.json`` describes.

    A sliding window is taken as full attention: vLLM may keep less of such a layer's cache, never more.

    Raises:
        UnreadableConfig: if a field is missing or no number, or a shape does not describe such a model.
    """
    text = config.get("text_config")
    if isinstance(text, Mapping):  # models that see have their text model inside
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
                f"config.json: {name}: {config[name]!r} means {what}, which is not known here; {INSTEAD}"
            )
    others = sorted(set(map(str, config.get("layer_types") or ())) - _CACHED)
    if others:
        raise UnreadableConfig(
            f"config.json: layer_types: {others[0]!r} is none of {', '.join(sorted(_CACHED))}; {INSTEAD}"
        )


def _layout(config: Mapping[str, Any]) -> Layout:
    name = config.get("model_type")
    name = "gemma3_text" if name == "gemma3" else name
    if not isinstance(name, str) or name not in LAYOUTS:
        raise UnreadableConfig(
            f"config.json: model_type: {name!r} is none of {', '.join(LAYOUTS)}; {INSTEAD}"
        )
    return LAYOUTS[name]


def _with_experts(shape: Shape, config: Mapping[str, Any], layout: Layout) -> Shape:
    """Return the shape with the experts of a mixture, in the layers that have them."""
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


EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
"""Fields that count a mixture's experts."""
_SHARED = "shared_expert_intermediate_size"


def _extras(shape: Shape, config: Mapping[str, Any], layout: Layout) -> int:
    extras = sum(extra(shape) for extra in layout.extras)
    if config.get(layout.head_norms_field or ""):
        extras += head_norms(shape)
    if config.get(layout.feed_forward_bias_field or ""):
        extras += 2 * shape.intermediate + shape.hidden
    return extras


def _tower(config: Mapping[str, Any], hidden: int) -> int:
    """Return the parameters of the SigLIP tower and projector of Gemma 3.

    Each layer has four projections of the attention, two of the feed-forward part, all with biases, and two
    norms with biases. Counted after ``Gemma3ForConditionalGeneration``.
    """
    vision = config.get("vision_config")
    if not isinstance(vision, Mapping):
        return 0
    if vision.get("model_type") != "siglip_vision_model":
        raise UnreadableConfig(
            f"config.json: vision_config.model_type: {vision.get('model_type')!r} is not siglip_vision_model,"
            f" the one that is known here; {INSTEAD}"
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
    """Return a number that may be absent or 0."""
    return _number(config, name) if config.get(name) else 0


def _number(config: Mapping[str, Any], name: str) -> int:
    value = config.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UnreadableConfig(f"config.json: {name}: {value!r} is not a whole number from 1; {INSTEAD}")
    return value


VOCABULARY = 151_936
"""The largest in common use among models of a stated size (Qwen)."""


def estimated(parameters: float) -> Shape:
    """Return a shape for a bare parameter count; it never shrinks as the count grows.

    Dense models people fine-tune have about ``0.13 · hidden³`` parameters (Llama 3.1 8B: 0.117, 70B: 0.128,
    Qwen2.5 7B: 0.166, 32B: 0.244) and a layer for every 80 columns or more; the feed-forward part is taken as
    wide as in the widest of them, four times the hidden size, and the key-value heads as eight. The heads are
    rounded up to eights, so that as many GPUs can share them.
    """
    hidden = 128 * math.ceil((parameters / 0.13) ** (1 / 3) / 128)
    return Shape(
        layers=math.ceil(hidden / 80),
        hidden=hidden,
        intermediate=4 * hidden,
        heads=8 * math.ceil(hidden / 1024),
        kv_heads=8,
        head_dim=128,
        vocabulary=VOCABULARY,
        context=131_072,
        stated=math.ceil(parameters),
    )
