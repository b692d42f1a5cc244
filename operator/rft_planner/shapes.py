"""The shape of a transformer: what its weights, its cache and its layers measure.

Every count is of one parameter or one element; bytes are the caller's. Formulas follow the reference
implementations in ``transformers`` (``modeling_llama``, ``modeling_qwen3_moe``, ``modeling_gpt_oss``), whose
layers are ``q/k/v/o_proj`` and ``gate/up/down_proj``.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Shape:
    """A decoder-only transformer with grouped-query attention and gated feed-forward layers.

    ``intermediate`` is the width of a dense layer's feed-forward part. A mixture has ``experts`` of width
    ``expert_intermediate`` in every layer instead, of which a token takes ``experts_per_token``.
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
    context: int = 32768
    """Longest sequence in tokens that the model was made for."""
    experts: int = 0
    experts_per_token: int = 0
    expert_intermediate: int = 0
    stated: int = 0
    """Parameters in all where the count is known and the rest is estimated from it."""

    @property
    def attention_parameters(self) -> int:
        """Parameters of one layer's attention: q and o are hidden × heads·d, k and v hidden × kv_heads·d."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        bias = q + 2 * kv if self.attention_bias else 0
        return 2 * self.hidden * q + 2 * self.hidden * kv + bias

    @property
    def feed_forward_parameters(self) -> int:
        """Parameters of one layer's gate, up and down; with experts, of all of them and the router."""
        if not self.experts:
            return 3 * self.hidden * self.intermediate
        return self.experts * 3 * self.hidden * self.expert_intermediate + self.hidden * self.experts

    @property
    def layer_parameters(self) -> int:
        """Parameters of one layer, its two norms included."""
        return self.attention_parameters + self.feed_forward_parameters + 2 * self.hidden

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
        return embeddings + self.layers * self.layer_parameters + self.hidden

    @property
    def active_parameters(self) -> int:
        """Parameters that one token is multiplied with: of the experts only those it takes."""
        if not self.experts:
            return self.parameters
        idle = self.experts - self.experts_per_token
        return self.parameters - self.layers * idle * 3 * self.hidden * self.expert_intermediate

    @property
    def kv_elements_per_token(self) -> int:
        """Elements of the key-value cache of one token, all layers: 2 · kv_heads · d each."""
        return self.layers * 2 * self.kv_heads * self.head_dim

    def lora_parameters(self, rank: int, *, feed_forward: bool = True) -> int:
        """Parameters of an adapter: rank · (in + out) for every adapted matrix (Hu et al. 2021, section 4.1).

        The experts of a mixture are not adapted, as in peft's ``all-linear`` on fused experts.
        """
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        widths = 2 * (self.hidden + q) + 2 * (self.hidden + kv)
        if feed_forward and not self.experts:
            widths += 3 * (self.hidden + self.intermediate)
        return self.layers * rank * widths


class UnreadableConfig(ValueError):
    """A ``config.json`` that does not describe a shape known here; the message names the field."""


def from_config(config: Mapping[str, Any]) -> Shape:
    """Return the shape that a model's ``config.json`` describes.

    Raises:
        UnreadableConfig: if a field is missing or no number.
    """
    text = config.get("text_config")
    if isinstance(text, Mapping):  # models that see have their text model inside
        config = {**config, **text}
    hidden, heads = _number(config, "hidden_size"), _number(config, "num_attention_heads")
    intermediate = _number(config, "intermediate_size")
    experts = _first(config, "num_local_experts", "num_experts", "n_routed_experts") or 0
    model_type = str(config.get("model_type", ""))
    bias = config.get("attention_bias", model_type == "qwen2")
    return Shape(
        layers=_number(config, "num_hidden_layers"),
        hidden=hidden,
        intermediate=intermediate,
        heads=heads,
        kv_heads=_first(config, "num_key_value_heads") or heads,
        head_dim=_first(config, "head_dim") or hidden // heads,
        vocabulary=_number(config, "vocab_size"),
        tied=bool(config.get("tie_word_embeddings", model_type.startswith("gemma"))),
        attention_bias=bool(bias),
        context=_first(config, "max_position_embeddings") or 32768,
        experts=experts,
        experts_per_token=(_first(config, "num_experts_per_tok", "experts_per_token") or 1) if experts else 0,
        expert_intermediate=(_first(config, "moe_intermediate_size") or intermediate) if experts else 0,
    )


def _first(config: Mapping[str, Any], *names: str) -> int | None:
    return next((_number(config, name) for name in names if config.get(name) is not None), None)


def _number(config: Mapping[str, Any], name: str) -> int:
    value = config.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UnreadableConfig(f"config.json: {name}: {value!r} is not a whole number from 1")
    return value


VOCABULARY = 151_936
"""The largest in common use among models of a stated size (Qwen)."""


def estimated(parameters: float) -> Shape:
    """Return a shape for a bare parameter count; it never shrinks as the count grows.

    Dense models people fine-tune have about ``0.13 · hidden³`` parameters (Llama 3.1 8B: 0.117, 70B: 0.128,
    Qwen2.5 7B: 0.166, 32B: 0.244) and a layer for every 80 columns or more; the feed-forward part is taken as
    wide as in the widest of them, four times the hidden size, and the key-value heads as eight.
    """
    hidden = 128 * math.ceil((parameters / 0.13) ** (1 / 3) / 128)
    heads = hidden // 128
    return Shape(
        layers=math.ceil(hidden / 80),
        hidden=hidden,
        intermediate=4 * hidden,
        heads=heads,
        kv_heads=min(8, heads),
        head_dim=128,
        vocabulary=VOCABULARY,
        context=131_072,
        stated=math.ceil(parameters),
    )
