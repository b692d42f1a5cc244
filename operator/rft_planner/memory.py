"""GPU memory of both roles, training and sampling, term by term, in bytes.

The trainer holds the base in bf16 and an adapter in float32. It recomputes each layer in the backward pass
(gradient checkpointing) and computes logits in chunks. The sampler is vLLM. Each function states its formula
with these letters: L layers, H hidden size, Q = heads · head size, I feed-forward columns that a token uses,
V vocabulary, M tokens of a micro-batch.

None of the terms has been measured on a GPU yet. They are meant to be upper bounds.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from rft_planner.shapes import Shape
from rft_planner.sizes import GIB

BF16 = 2
FLOAT32 = 4

LOGITS_CHUNK_TOKENS = 1024
"""Number of positions whose logits are in the trainer's memory at the same time."""
SAMPLER_SEQUENCES = 256
"""Completions that vLLM generates concurrently (``max_num_seqs``)."""
SAMPLER_BATCH_TOKENS = 8192
"""``max_num_batched_tokens`` of vLLM's server on a large GPU. At its start vLLM profiles a batch of this
size."""
SLOT_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values of vLLM's ``max_lora_rank``. An adapter uses a slot of the smallest value that is not below its
rank."""
USABLE = 0.94
"""Share of a device's memory that processes can use. The driver and its page tables keep the rest."""
SUMS_KEPT = 512
"""Size of the cache of sums. A plan tries many kinds and numbers of GPUs, which often need the same sum."""


@dataclass(frozen=True)
class Part:
    """One line of the memory sum."""

    name: str
    bytes: float


def total(parts: Iterable[Part]) -> float:
    """Return the sum of the parts, in bytes."""
    return sum(part.bytes for part in parts)


@dataclass(frozen=True)
class MemoryDemand:
    """The properties of a run that decide its memory. Lengths are in tokens."""

    rank: int
    context: int
    """The longest sequence, prompt and completion together."""
    rollouts: int
    """Completions per prompt, which vLLM generates concurrently."""
    attention_only: bool = False
    """Whether only the attention's projections have adapters."""


def columns(shape: Shape) -> int:
    """I: feed-forward columns that one token uses."""
    return shape.experts_per_token * shape.expert_intermediate if shape.experts else shape.intermediate


@lru_cache(SUMS_KEPT)
def training(shape: Shape, work: MemoryDemand, tokens: int, gpus: int = 1) -> tuple[Part, ...]:
    """Return the trainer's parts on each of ``gpus`` GPUs, with micro-batches of ``tokens``."""
    gathered = [Part("training: gathered layers", gathered_layers(shape))] if gpus > 1 else []
    return (
        Part("training: base weights", base_weights(shape, gpus)),
        *gathered,
        Part("training: adapter and optimizer", adapter_and_optimizer(shape, work)),
        Part("training: saved activations", saved_activations(shape, tokens)),
        Part("training: one layer's recomputation", layer_peak(shape, tokens)),
        Part("training: attention mask", attention_mask(tokens)),
        Part("training: logits of a chunk", logits_chunk(shape)),
        Part("training: context and fragmentation", reserve(shape, tokens)),
    )


def base_weights(shape: Shape, gpus: int = 1) -> float:
    """The base in bf16. Layers are divided over the GPUs. Embedding, output layer and last norm are not."""
    whole = min(shape.parameters, shape.embedding_parameters * (1 if shape.tied else 2) + shape.hidden)
    return BF16 * (whole + (shape.parameters - whole) / gpus)


def gathered_layers(shape: Shape) -> float:
    """Three complete layers in bf16, and 1 GiB for buffers of the communication library.

    For the layer that is being computed, FSDP2 holds the gathered bytes and the weights copied out of them.
    For the next layer, which it fetches at the same time, it holds the gathered bytes.
    """
    return 3 * BF16 * shape.layer_parameters + GIB


def adapter_and_optimizer(shape: Shape, work: MemoryDemand) -> float:
    """Adapter, its gradient and AdamW's two moments, all in float32: 16 bytes per parameter.

    Every training GPU has the whole adapter. Only the first one has the moments.
    """
    return 4 * FLOAT32 * shape.lora_parameters(work.rank, feed_forward=not work.attention_only)


def saved_activations(shape: Shape, tokens: int) -> float:
    """The input of every layer, L · M · H in bf16, and the last hidden states with their gradient."""
    return BF16 * tokens * shape.hidden * (shape.layers + 2)


def layer_peak(shape: Shape, tokens: int) -> float:
    """Peak of one layer during its recomputation and backward pass: M · (46 H + 14 Q + 20 I) bytes.

    In bf16 there are outputs of two norms, inputs and outputs of the projections, queries, keys and values
    after rotation and repetition, and gate, up, their product and its gradient: 2 · (5 H + 5 Q + 4 I). In
    float32 there are the norms, and the inputs that peft converts for the float32 weights of each adapted
    matrix: 4 · (9 H + Q + 3 I).
    """
    hidden, query, wide = shape.hidden, shape.heads * shape.head_dim, columns(shape)
    in_bf16 = BF16 * (5 * hidden + 5 * query + 4 * wide)
    in_float32 = FLOAT32 * (9 * hidden + query + 3 * wide)
    return tokens * (in_bf16 + in_float32)


def attention_mask(tokens: int) -> float:
    """The attention mask of a row with a shared prompt: M² in bf16, and temporarily as booleans."""
    return (BF16 + 1) * tokens**2


def logits_chunk(shape: Shape) -> float:
    """Logits of one chunk: V · 1024 · 40 bytes.

    In bf16 there are the raw logits. In float32 there are the scaled, filtered and sorted logits (with 64-bit
    indices), their cumulative probabilities, the normalizer's copy, and two gradients.
    """
    return 40 * LOGITS_CHUNK_TOKENS * shape.vocabulary


def reserve(shape: Shape, tokens: int) -> float:
    """A CUDA context with the workspaces of its libraries (1 GiB), and 8 % of the temporary memory."""
    passing = saved_activations(shape, tokens) + layer_peak(shape, tokens) + logits_chunk(shape)
    return GIB + 0.08 * passing


@lru_cache(SUMS_KEPT)
def sampling(shape: Shape, work: MemoryDemand, gpus: int = 1) -> tuple[Part, ...]:
    """Return vLLM's parts on each of ``gpus`` GPUs, with a cache for one group."""
    return (
        Part("sampling: base weights", BF16 * shape.parameters / gpus),
        Part("sampling: key-value cache of a group", kv_cache(shape, work.rollouts * work.context, gpus)),
        Part("sampling: adapter slots", adapter_slots(shape, work, gpus)),
        Part("sampling: a batch of tokens", sampler_batch(shape, gpus)),
        Part("sampling: logits", sampler_logits(shape)),
        Part("sampling: context and graphs", 2 * GIB),
    )


def kv_cache(shape: Shape, tokens: int, gpus: int = 1) -> float:
    """Keys and values in bf16. Key-value heads are divided over the GPUs; no GPU has less than one head."""
    return BF16 * shape.kv_elements_per_token * tokens / min(gpus, shape.kv_heads)


def adapter_slots(shape: Shape, work: MemoryDemand, gpus: int = 1) -> float:
    """Two adapter slots in bf16, needed during an adapter change, each of the next rank of vLLM."""
    slot = next((size for size in SLOT_RANKS if size >= work.rank), work.rank)
    return 2 * BF16 * shape.lora_parameters(slot, feed_forward=not work.attention_only) / gpus


def sampler_batch(shape: Shape, gpus: int = 1) -> float:
    """The batch that vLLM profiles: residual, norm and output in full, projections and columns divided."""
    query = shape.heads * shape.head_dim
    divided = (3 * query + 3 * columns(shape)) / gpus
    return BF16 * SAMPLER_BATCH_TOKENS * (4 * shape.hidden + divided)


def sampler_logits(shape: Shape) -> float:
    """Float32 logits of all sequences: raw, processed, and sorted with 64-bit indices."""
    return (3 * FLOAT32 + 8) * SAMPLER_SEQUENCES * shape.vocabulary
