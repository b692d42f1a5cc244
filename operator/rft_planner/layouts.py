"""Properties of model types that follow from the code of the model, and are not in its ``config.json``.

Examples are the norms of a layer, and whether q, k and v are one matrix. The properties come from the model
classes of ``transformers`` 5.19. A test builds a model of each type with random weights. It compares the
planned number of parameters with that of the model, and the planned number of the adapter's parameters with
the number that peft 0.21 trains.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from rft_planner.shapes import Shape

Extra = Callable[[Shape], int]


def head_norms(shape: Shape) -> int:
    """Return the number of parameters of a layer's query and key norms, which are norms of each head.

    Each of the two norms has one weight per column of a head.
    """
    return 2 * shape.head_dim


def width_norms(shape: Shape) -> int:
    """Return the number of parameters of a layer's query norm and key norm, each a single norm for all heads.

    The query norm has one weight for each column of each query head, and the key norm one for each column of
    each key head.
    """
    return (shape.heads + shape.kv_heads) * shape.head_dim


def two_more_norms(shape: Shape) -> int:
    """Return the number of parameters of a layer's two additional norms, after attention and feed-forward."""
    return 2 * shape.hidden


def output_bias(shape: Shape) -> int:
    """Return the number of parameters of the bias of a layer's attention output.

    It is 0 if q, k and v have no biases, because then the output has no bias either.
    """
    return shape.hidden if shape.attention_bias else 0


def sinks(shape: Shape) -> int:
    """Return the number of parameters of a layer's attention sinks: one for each query head."""
    return shape.heads


def expert_biases(shape: Shape) -> int:
    """Return the number of parameters of a layer's biases in the router and its experts' gate, up, down."""
    return shape.experts * (1 + 2 * shape.expert_intermediate + shape.hidden)


@dataclass(frozen=True)
class Layout:
    """Properties of one type of models, for example of all models with the ``model_type`` qwen3.

    They decide how many parameters a model and its adapter have.
    """

    extras: tuple[Extra, ...] = (output_bias,)
    """Functions, each of which counts some further parameters of a layer. Matrices, the two usual norms, and
    the biases of q, k and v are counted elsewhere."""
    bias: bool = False
    """Whether q, k and v have biases if ``config.json`` does not have the field ``bias_field``."""
    bias_field: str | None = "attention_bias"
    """Name of the field of ``config.json`` that says whether q, k and v have biases. ``None``: there is no
    such field."""
    head_norms_field: str | None = None
    """Name of a field of ``config.json``. If it is true, queries and keys have the norms that ``head_norms``
    counts. ``None``: there is no such field."""
    feed_forward_bias_field: str | None = None
    """Name of a field of ``config.json``. If it is true, gate, up and down have biases. ``None``: there is no
    such field."""
    tied: bool = False
    """Whether the output layer shares the embedding's weights if ``config.json`` has no
    ``tie_word_embeddings``."""
    fused_attention: bool = False
    """Whether q, k and v are one matrix, with one adapter."""
    fused_feed_forward: bool = False
    """Whether gate and up are one matrix, with one adapter."""
    attention_adapters: bool = False
    """Whether only attention gets adapters, because vLLM loads no adapter of a fused gate and up matrix."""
    mixture: bool = False
    """Whether models of this type are mixtures of experts."""
    shared_gate: bool = False
    """Whether each layer has a shared expert with a gate. Every token uses the shared expert."""
    defaults: Mapping[str, int] = field(default_factory=dict)
    """Default values of fields that a ``config.json`` of this type may leave out."""


def _defaults(**values: int) -> Mapping[str, int]:
    return MappingProxyType(values)


_PLAIN = Layout(extras=(), bias_field=None)
_GEMMA_3 = _defaults(
    head_dim=256,
    num_attention_heads=8,
    num_key_value_heads=4,
    vocab_size=262_208,
    max_position_embeddings=131_072,
)

LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        "ernie4_5": Layout(
            bias_field="use_bias", feed_forward_bias_field="use_bias", tied=True,
            defaults=_defaults(head_dim=128),
        ),
        "exaone4": Layout(extras=(head_norms,), bias_field=None),
        "gemma": Layout(tied=True, defaults=_defaults(head_dim=256)),
        "gemma2": Layout(extras=(two_more_norms, output_bias), tied=True, defaults=_defaults(head_dim=256)),
        "gemma3_text": Layout(extras=(head_norms, two_more_norms, output_bias), tied=True, defaults=_GEMMA_3),
        "glm": Layout(extras=(), bias=True, fused_feed_forward=True, defaults=_defaults(head_dim=128)),
        "glm4": Layout(
            extras=(two_more_norms,), bias=True, fused_feed_forward=True, attention_adapters=True,
            defaults=_defaults(head_dim=128),
        ),
        "glm4_moe": Layout(extras=(), head_norms_field="use_qk_norm", mixture=True),
        "gpt_oss": Layout(
            extras=(output_bias, sinks, expert_biases), bias=True, mixture=True,
            defaults=_defaults(head_dim=64),
        ),
        "granite": Layout(feed_forward_bias_field="mlp_bias"),
        "hunyuan_v1_dense": Layout(extras=(head_norms, output_bias)),
        "llama": Layout(feed_forward_bias_field="mlp_bias"),
        "ministral3": Layout(extras=(), bias_field=None, defaults=_defaults(head_dim=128)),
        "mistral": _PLAIN,
        "mixtral": Layout(extras=(), bias_field=None, mixture=True),
        "olmo2": Layout(extras=(width_norms, output_bias)),
        "olmo3": Layout(extras=(width_norms, output_bias)),
        "olmoe": Layout(extras=(width_norms, output_bias), mixture=True),
        "phi3": Layout(extras=(), bias_field=None, fused_attention=True, fused_feed_forward=True),
        "qwen2": Layout(extras=(), bias=True, bias_field=None),
        "qwen2_moe": Layout(extras=(), bias=True, bias_field="qkv_bias", mixture=True, shared_gate=True),
        "qwen3": Layout(extras=(head_norms, output_bias), defaults=_defaults(head_dim=128)),
        "qwen3_moe": Layout(extras=(head_norms, output_bias), mixture=True),
        "smollm3": Layout(feed_forward_bias_field="mlp_bias", tied=True),
    }
)  # fmt: skip
"""Properties of each type of models, by the ``model_type`` in ``config.json``."""
