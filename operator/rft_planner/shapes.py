"""The shape of a transformer: what its weights, its cache and its layers measure.

Every count is of one parameter or one element; bytes are the caller's.
"""

import math
from dataclasses import dataclass, field


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
