"""Memory of both roles on a GPU, term by term, in bytes.

The trainer holds the base in bf16 and an adapter in float32, recomputes each layer in the backward pass
(gradient checkpointing) and makes logits in chunks. The sampler is vLLM. Each function names its formula;
the letters: L layers, H hidden size, Q = heads · head size, I feed-forward columns that a token uses, V
vocabulary, M tokens of a micro-batch.

None of the terms has been measured on a GPU yet; they are meant to be no smaller than what is used.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from rft_planner.shapes import Shape
from rft_planner.sizes import GIB

BF16 = 2
FLOAT32 = 4

LOGITS_CHUNK_TOKENS = 1024
"""Positions whose logits exist at once in the trainer."""
SAMPLER_SEQUENCES = 256
"""Completions that vLLM works on at once (``max_num_seqs``)."""
SAMPLER_BATCH_TOKENS = 8192
"""``max_num_batched_tokens`` of vLLM's server on a large GPU; its start-up profiles a batch of this size."""
SLOT_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values of vLLM's ``max_lora_rank``; a smaller adapter takes a slot of the next larger one."""
USABLE = 0.94
"""Share of a device's memory that processes can have; the driver and its page tables keep the rest."""
SUMS_KEPT = 512
"""Sums that are remembered: a plan compares kinds of GPU and counts of them, which ask for the same again."""


@dataclass(frozen=True)
class Part:
    """One line of the sum."""

    name: str
    bytes: float


def total(parts: Iterable[Part]) -> float:
    """Return the sum of the parts, in bytes."""
    return sum(part.bytes for part in parts)


@dataclass(frozen=True)
class Workload:
    """What a run asks of its memory; lengths in tokens."""

    rank: int
    context: int
    """The longest sequence."""
    rollouts: int
    """Completions of one prompt, which vLLM works on together."""
    attention_only: bool = False
    """Whether only the attention's projections are adapted."""


def columns(shape: Shape) -> int:
    """I: feed-forward columns that one token uses."""
    return shape.experts_per_token * shape.expert_intermediate if shape.experts else shape.intermediate


@lru_cache(SUMS_KEPT)
def training(shape: Shape, work: Workload, tokens: int, gpus: int = 1) -> tuple[Part, ...]:
    """Return the parts of the trainer on each of ``gpus`` GPUs, with micro-batches of ``tokens``."""
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
    """The base in bf16: the layers divided over the GPUs, embedding, output layer and last norm on each."""
    whole = min(shape.parameters, shape.embedding_parameters * (1 if shape.tied else 2) + shape.hidden)
    return BF16 * (whole + (shape.parameters - whole) / gpus)


def gathered_layers(shape: Shape) -> float:
    """Three whole layers in bf16, and 1 GiB of the communication library's buffers.

    Of the layer that is computed FSDP2 holds the gathered bytes and the weights copied out of them; of the
    next one, fetched meanwhile, the gathered bytes.
    """
    return 3 * BF16 * shape.layer_parameters + GIB


def adapter_and_optimizer(shape: Shape, work: Workload) -> float:
    """Adapter, its gradient and AdamW's two moments, all in float32: 16 bytes a parameter.

    Every training GPU has the whole adapter; the moments are on the first only.
    """
    return 4 * FLOAT32 * shape.lora_parameters(work.rank, feed_forward=not work.attention_only)


def saved_activations(shape: Shape, tokens: int) -> float:
    """The input of every layer, L · M · H in bf16, and the last hidden states with their gradient."""
    return BF16 * tokens * shape.hidden * (shape.layers + 2)


def layer_peak(shape: Shape, tokens: int) -> float:
    """One layer while it is computed again and differentiated: M · (46 H + 14 Q + 20 I) bytes.

    In bf16 two norms' outputs, the projections' inputs and outputs, queries, keys and values after rotation
    and repetition, and gate, up, their product and its gradient: 2 · (5 H + 5 Q + 4 I). In float32 the norms
    and what peft casts for each adapted matrix, whose weights are float32: 4 · (9 H + Q + 3 I).
    """
    hidden, query, wide = shape.hidden, shape.heads * shape.head_dim, columns(shape)
    in_bf16 = BF16 * (5 * hidden + 5 * query + 4 * wide)
    in_float32 = FLOAT32 * (9 * hidden + query + 3 * wide)
    return tokens * (in_bf16 + in_float32)


def attention_mask(tokens: int) -> float:
    """The mask of a row whose rollouts share their prompt: M² in bf16, and as booleans while it is made."""
    return (BF16 + 1) * tokens**2


def logits_chunk(shape: Shape) -> float:
    """Logits of one chunk: V · 1024 · 40 bytes.

    In bf16 as they come, in float32 as scaled, filtered, sorted with 64-bit indices, their cumulated
    probabilities, the normalizer's copy, and two gradients.
    """
    return 40 * LOGITS_CHUNK_TOKENS * shape.vocabulary


def reserve(shape: Shape, tokens: int) -> float:
    """A CUDA context with its libraries' workspaces, 1 GiB, and 8 % of what comes and goes."""
    passing = saved_activations(shape, tokens) + layer_peak(shape, tokens) + logits_chunk(shape)
    return GIB + 0.08 * passing


@lru_cache(SUMS_KEPT)
def sampling(shape: Shape, work: Workload, gpus: int = 1) -> tuple[Part, ...]:
    """Return the parts of vLLM on each of ``gpus`` GPUs, with the cache that one group needs."""
    return (
        Part("sampling: base weights", BF16 * shape.parameters / gpus),
        Part("sampling: key-value cache of a group", kv_cache(shape, work.rollouts * work.context, gpus)),
        Part("sampling: adapter slots", adapter_slots(shape, work, gpus)),
        Part("sampling: a batch of tokens", sampler_batch(shape, gpus)),
        Part("sampling: logits", sampler_logits(shape)),
        Part("sampling: context and graphs", 2 * GIB),
    )


def kv_cache(shape: Shape, tokens: int, gpus: int = 1) -> float:
    """Keys and values in bf16; key-value heads are divided over the GPUs as far as there are any."""
    return BF16 * shape.kv_elements_per_token * tokens / min(gpus, shape.kv_heads)


def adapter_slots(shape: Shape, work: Workload, gpus: int = 1) -> float:
    """Two slots in bf16 while a version is published, each as large as vLLM's next rank."""
    slot = next((size for size in SLOT_RANKS if size >= work.rank), work.rank)
    return 2 * BF16 * shape.lora_parameters(slot, feed_forward=not work.attention_only) / gpus


def sampler_batch(shape: Shape, gpus: int = 1) -> float:
    """vLLM's profiled batch: residual, norm and output at full width, projections and columns divided."""
    query = shape.heads * shape.head_dim
    divided = (3 * query + 3 * columns(shape)) / gpus
    return BF16 * SAMPLER_BATCH_TOKENS * (4 * shape.hidden + divided)


def sampler_logits(shape: Shape) -> float:
    """Float32 logits of all sequences: as they come, processed, and sorted with 64-bit indices."""
    return (3 * FLOAT32 + 8) * SAMPLER_SEQUENCES * shape.vocabulary
