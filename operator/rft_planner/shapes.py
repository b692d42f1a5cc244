"""The shape of a transformer: its layers, widths and heads, and the counts of parameters that follow.

Every function counts parameters or elements. To get bytes, callers multiply by the bytes of a dtype.
"""

import math
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Shape:
    """The shape of a decoder-only transformer with grouped-query attention and gated feed-forward layers.

    - ``hidden`` is the hidden size, and ``vocabulary`` is the number of tokens in the vocabulary.
    - ``heads`` and ``kv_heads`` are the numbers of query heads and of key-value heads. ``head_dim`` is the
      number of columns of one head.
    - ``intermediate`` is the width of the feed-forward part of a layer without experts.
    - ``experts`` is the number of experts of a layer with experts. Such a layer has no other feed-forward
      part.
    - ``experts_per_token`` is the number of experts that a token uses in such a layer.
    - ``expert_intermediate`` is the width of one expert.
    - ``dense_layers`` is the number of layers without experts in a mixture of experts.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool = False
    """Whether the output layer shares the embedding's weights."""
    attention_bias: bool = False
    """Whether q, k and v have a bias."""
    context: int = 32768
    """Longest sequence that the model supports, in tokens."""
    extras: int = 0
    """Number of further parameters of one layer, for example of query and key norms.

    It does not include the matrices, the two usual norms, and the biases of q, k and v."""
    fused_attention: bool = False
    """Whether q, k and v are one matrix, with one adapter."""
    fused_feed_forward: bool = False
    """Whether gate and up are one matrix, with one adapter."""
    attention_adapters: bool = False
    """Whether only attention gets adapters, because vLLM loads no adapter of the model's fused gate and up
    matrix. A model with experts has adapters only in attention, also if this is false."""
    experts: int = 0
    experts_per_token: int = 0
    expert_intermediate: int = 0
    dense_layers: int = 0
    shared_intermediate: int = 0
    """Width of a layer's shared expert, which every token uses. 0: there is no shared expert."""
    shared_gate: bool = False
    """Whether the shared expert has a gate, with one weight for each column of the hidden size."""
    beside: int = 0
    """Number of parameters outside the text model: a vision tower and its projector."""
    stated: int = 0
    """Total number of parameters that the user gave, if all other fields are estimated from it. Else 0."""
    stored: str = field(default="", compare=False)
    """Dtype of the weights in the checkpoint, such as bfloat16. Empty: it is not known."""

    @property
    def attention_parameters(self) -> int:
        """Number of parameters of one layer's attention: matrices of q, k, v, o, and biases of q, k, v."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        bias = q + 2 * kv if self.attention_bias else 0
        return 2 * self.hidden * q + 2 * self.hidden * kv + bias

    @property
    def feed_forward_parameters(self) -> int:
        """Number of parameters of one layer's feed-forward part.

        In a mixture of experts, this part is the experts, the router and the shared expert with its gate.
        """
        if not self.experts:
            return 3 * self.hidden * self.intermediate
        columns = self.experts * self.expert_intermediate + self.shared_intermediate
        return 3 * self.hidden * columns + self.hidden * (self.experts + self.shared_gate)

    @property
    def layer_parameters(self) -> int:
        """Number of parameters of one layer. In a mixture of experts, it is that of a layer with experts."""
        return self.attention_parameters + self.feed_forward_parameters + 2 * self.hidden + self.extras

    @property
    def embedding_parameters(self) -> int:
        """Number of parameters of the embedding. An output layer with its own weights has as many."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """Number of all parameters of the model, with the embedding, the output layer and a vision tower."""
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
        """Number of parameters that one token uses: all, without the experts that it is not routed to."""
        idle = self.expert_layers * (self.experts - self.experts_per_token)
        return self.parameters - idle * 3 * self.hidden * self.expert_intermediate

    @property
    def expert_layers(self) -> int:
        """Number of layers with experts. It is 0 in a model that is not a mixture of experts."""
        return self.layers - self.dense_layers if self.experts else 0

    @property
    def kv_elements_per_token(self) -> int:
        """Number of elements in the key-value cache for one token: 2 · kv_heads · head_dim in each layer."""
        return self.layers * 2 * self.kv_heads * self.head_dim

    @property
    def adapts_attention_only(self) -> bool:
        """Whether only the attention of this model can have LoRA adapters, and not its feed-forward part."""
        return self.experts > 0 or self.attention_adapters

    def lora_parameters(self, rank: int, *, feed_forward: bool = True) -> int:
        """Return the number of parameters of a LoRA adapter with this rank.

        It is the sum of rank · (in + out) over all adapted matrices (Hu et al. 2021, section 4.1). The
        adapted matrices are the projections of attention, and with ``feed_forward`` also those of the
        feed-forward part. If ``adapts_attention_only`` is true, they are always only those of attention.
        """
        widths = self._attention_widths
        if feed_forward and not self.adapts_attention_only:
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


VOCABULARY = 151_936
"""Size of the vocabulary of an estimated shape. It is the vocabulary of Qwen, the largest common one."""


def estimated(parameters: float) -> Shape:
    """Estimate the shape of a model (layers, widths, heads) from its number of parameters.

    A larger number never gives a smaller shape. The estimate follows dense models that people fine-tune:

    - They have about ``0.13 · hidden³`` parameters. The factor is 0.117 for Llama 3.1 8B, 0.128 for 70B,
      0.166 for Qwen2.5 7B, and 0.244 for 32B.
    - Their hidden size is at most 80 times the number of layers.
    - Their feed-forward part is at most four times as wide as the hidden size. The estimate has this width.

    The estimate has eight key-value heads. Its number of heads is rounded up to a multiple of eight, so that
    up to eight GPUs can divide the heads.
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
