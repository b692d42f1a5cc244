"""Calculates the GPU memory that training and sampling need, in bytes, as a sum of parts.

The trainer has the base model in bf16 and an adapter in float32. It computes each layer again in the backward
pass (gradient checkpointing), and it computes logits in chunks. The sampler is vLLM. The formulas in the
docstrings use these letters:

- H: the hidden size
- Q: the number of attention heads, times the size of a head
- I: the number of feed-forward columns that a token uses
- V: the size of the vocabulary
- M: the number of tokens of a micro-batch

None of the parts has been measured on a GPU yet. They are meant to be upper bounds.
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
"""Maximum number of completions that vLLM generates concurrently (``max_num_seqs``)."""
SAMPLER_BATCH_TOKENS = 8192
"""``max_num_batched_tokens`` of vLLM's server on a large GPU. At its start vLLM runs a batch of this size
to measure its memory."""
SLOT_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Allowed values of vLLM's ``max_lora_rank``. The rank of an adapter is rounded up to one of them."""
USABLE = 0.94
"""Share of a device's memory that processes can use. The driver and its page tables keep the rest."""
SUMS_KEPT = 512
"""Maximum number of cached results of ``training``, and of ``sampling``. Plans often need one again."""


@dataclass(frozen=True)
class Part:
    """A part of the memory that a run needs, such as the base weights in training: its name and its bytes."""

    name: str
    bytes: float


def total(parts: Iterable[Part]) -> float:
    """Return the sum of the bytes of all parts."""
    return sum(part.bytes for part in parts)


@dataclass(frozen=True)
class MemoryDemand:
    """The settings of a run that decide how much memory it needs, in addition to the shape of the model."""

    rank: int
    """Rank of the LoRA adapter."""
    context: int
    """Maximum length of prompt and completion together, in tokens."""
    rollouts: int
    """Number of completions of each prompt, which vLLM generates concurrently."""
    attention_only: bool = False
    """Whether only the attention's projections have adapters."""
    batch: int = 0
    """Number of tokens in the batch of one step, or 0 if it is not known. The GPUs that train divide these
    tokens, so a micro-batch need not be larger than the share of one GPU."""
    adapters: int = 1
    """Number of adapters that a sampler uses at the same time, if sampling and training have separate GPUs.
    """


def columns(shape: Shape) -> int:
    """Return the number of feed-forward columns that one token uses in a layer. Formulas call it I.

    In a mixture of experts, these are the columns of the experts that a token is routed to.
    """
    return shape.experts_per_token * shape.expert_intermediate if shape.experts else shape.intermediate


@lru_cache(SUMS_KEPT)
def training(
    shape: Shape, work: MemoryDemand, tokens: int, gpus: int = 1, divided: bool = True
) -> tuple[Part, ...]:
    """Return the parts of the memory that training needs on each of the ``gpus`` GPUs that train.

    ``tokens`` is the number of tokens of a micro-batch on one GPU. ``divided`` says whether several GPUs
    divide the layers of the base model (FSDP2). If not, each GPU has the whole base model.
    """
    shared = divided and gpus > 1
    gathered = [Part("training: gathered layers", gathered_layers(shape))] if shared else []
    buffers = [Part("training: communication buffers", GIB)] if gpus > 1 else []
    return (
        Part("training: base weights", base_weights(shape, gpus if shared else 1)),
        *gathered,
        *buffers,
        Part("training: adapter and optimizer", adapter_and_optimizer(shape, work)),
        Part("training: saved activations", saved_activations(shape, tokens)),
        Part("training: one layer's recomputation", layer_peak(shape, tokens)),
        Part("training: attention mask", attention_mask(tokens)),
        Part("training: logits of a chunk", logits_chunk(shape)),
        Part("training: context and fragmentation", reserve(shape, tokens)),
    )


def base_weights(shape: Shape, gpus: int = 1) -> float:
    """Return the bytes of the base model in bf16 on one GPU, if ``gpus`` GPUs divide the layers of the model.

    The embedding, the output layer and the last norm are whole on each GPU.
    """
    whole = min(shape.parameters, shape.embedding_parameters * (1 if shape.tied else 2) + shape.hidden)
    return BF16 * (whole + (shape.parameters - whole) / gpus)


def gathered_layers(shape: Shape) -> float:
    """Return the bytes of the layers that FSDP2 gathers on each GPU: three complete layers in bf16.

    FSDP2 has the current layer twice: as gathered bytes, and as the weights that it copies from these bytes.
    At the same time it gathers the bytes of the next layer.
    """
    return 3 * BF16 * shape.layer_parameters


def adapter_and_optimizer(shape: Shape, work: MemoryDemand) -> float:
    """Return the bytes of the adapter, its gradient and AdamW's two moments: 16 bytes for each parameter.

    Every GPU that trains has the whole adapter, but only the first one has the moments. The result is for the
    first GPU.
    """
    return 4 * FLOAT32 * shape.lora_parameters(work.rank, feed_forward=not work.attention_only)


def saved_activations(shape: Shape, tokens: int) -> float:
    """Return the bytes of the activations that are saved for the backward pass, all in bf16.

    These are the inputs of all layers, the last hidden states and their gradient. ``tokens`` is the number of
    tokens of a micro-batch.
    """
    return BF16 * tokens * shape.hidden * (shape.layers + 2)


def layer_peak(shape: Shape, tokens: int) -> float:
    """Return the peak bytes of the backward pass of one layer: M · (46 H + 14 Q + 20 I).

    In this pass the layer is computed again (gradient checkpointing). M is ``tokens``, H the hidden size, Q
    the columns of all query heads, and I the number of feed-forward columns that a token uses. The sum in the
    parentheses has two parts.
    In bf16, 2 · (5 H + 5 Q + 4 I):

    - the outputs of the two norms
    - the inputs and outputs of the projections
    - queries, keys and values after rotation and repetition
    - gate, up, the product of both, and the product's gradient

    In float32, 4 · (9 H + Q + 3 I):

    - the norms
    - for each adapted matrix, the copy of its input that peft makes, since the adapter is in float32
    """
    hidden, query, wide = shape.hidden, shape.heads * shape.head_dim, columns(shape)
    in_bf16 = BF16 * (5 * hidden + 5 * query + 4 * wide)
    in_float32 = FLOAT32 * (9 * hidden + query + 3 * wide)
    return tokens * (in_bf16 + in_float32)


def attention_mask(tokens: int) -> float:
    """Return the bytes of the attention mask of a micro-batch: M² values in bf16 and M² booleans.

    M is ``tokens``, the length of the micro-batch. A mask is needed because a row may have a prompt once, and
    then several of its completions.
    """
    return (BF16 + 1) * tokens**2


def logits_chunk(shape: Shape) -> float:
    """Return the bytes of the logits of one chunk, with their temporary copies: V · 1024 · 40.

    The trainer computes logits in chunks of 1024 positions. V is the size of the vocabulary. 40 is an upper
    bound of the bytes for each logit. 38 of these bytes are 2 for the raw logits in bf16, 8 for the 64-bit
    indices of the sorted logits, and 4 for each of these values in float32:

    - the scaled, the filtered and the sorted logits
    - their cumulative probabilities
    - a copy for the normalizer
    - two gradients
    """
    return 40 * LOGITS_CHUNK_TOKENS * shape.vocabulary


def reserve(shape: Shape, tokens: int) -> float:
    """Return the bytes that are reserved on a GPU that trains, in addition to all calculated parts.

    They are 1 GiB for the CUDA context and its libraries, and 8 % of the temporary memory for fragmentation.
    """
    passing = saved_activations(shape, tokens) + layer_peak(shape, tokens) + logits_chunk(shape)
    return GIB + 0.08 * passing


@lru_cache(SUMS_KEPT)
def sampling(shape: Shape, work: MemoryDemand, gpus: int = 1, apart: bool = False) -> tuple[Part, ...]:
    """Return the parts of the memory that sampling needs on each of the ``gpus`` GPUs of one vLLM server.

    It is the least memory: the key-value cache has room for a single group, which is all rollouts of one
    prompt, each of the maximum length. ``apart`` says whether sampling and training have separate GPUs. If
    not, the server uses only one adapter at a time.
    """
    return (
        Part("sampling: base weights", BF16 * shape.parameters / gpus),
        Part("sampling: key-value cache of a group", kv_cache(shape, work.rollouts * work.context, gpus)),
        Part("sampling: adapter slots", adapter_slots(shape, work, gpus, work.adapters if apart else 1)),
        Part("sampling: a batch of tokens", sampler_batch(shape, gpus)),
        Part("sampling: logits", sampler_logits(shape)),
        Part("sampling: context and graphs", 2 * GIB),
    )


def kv_cache(shape: Shape, tokens: int, gpus: int = 1) -> float:
    """Return the bytes of a key-value cache in bf16 for ``tokens`` tokens, on one of ``gpus`` GPUs.

    The GPUs divide the key-value heads. But each GPU has at least one head.
    """
    return BF16 * shape.kv_elements_per_token * tokens / min(gpus, shape.kv_heads)


def adapter_slots(shape: Shape, work: MemoryDemand, gpus: int = 1, adapters: int = 1) -> float:
    """Return the bytes that vLLM reserves for adapters in bf16, on one of the ``gpus`` GPUs of a server.

    ``adapters`` is the number of adapters in use. vLLM has room for one more, so that it can load the next
    adapter while all adapters in use stay in its memory. The rank is rounded up to a rank in ``SLOT_RANKS``.
    """
    slot = next((size for size in SLOT_RANKS if size >= work.rank), work.rank)
    return (adapters + 1) * BF16 * shape.lora_parameters(slot, feed_forward=not work.attention_only) / gpus


def sampler_batch(shape: Shape, gpus: int = 1) -> float:
    """Return the temporary bytes for vLLM's largest batch of tokens, on one of the ``gpus`` GPUs of a server.

    The GPUs divide the outputs of the projections and of the feed-forward columns. Each GPU has all hidden
    states.
    """
    query = shape.heads * shape.head_dim
    divided = (3 * query + 3 * columns(shape)) / gpus
    return BF16 * SAMPLER_BATCH_TOKENS * (4 * shape.hidden + divided)


def sampler_logits(shape: Shape) -> float:
    """Return the bytes of the logits in vLLM, for all completions that it generates concurrently.

    The logits are in float32: raw, processed, and sorted with 64-bit indices.
    """
    return (3 * FLOAT32 + 8) * SAMPLER_SEQUENCES * shape.vocabulary
