"""Calculates the peak memory of the trainer's container in a run on the CPU, in bytes, as a sum of terms.

The formulas in the docstrings use these letters:

- H: the hidden size
- Q: the number of attention heads, times the size of a head
- I: the number of feed-forward columns that a token uses
- V: the size of the vocabulary
- M: the number of tokens of a micro-batch
- N: the number of tokens in one chunk of logits
- w: the bytes of one value: 4 in float32, 2 in bfloat16

The weights of the base model, and values computed with them, have the run's dtype (see the module
``precision``). Two things are always float32: the adapter in the trainer, and logits after scaling. There is
no gradient checkpointing on the CPU, so each layer is computed only once.

``bench/memory.py`` compares the sum with the proportional set size of the processes, in both dtypes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from rft_api.job import RFTJobSpec
from rft_api.parameters import Dtype
from rft_api.status import Effective
from rft_planner.memory import FLOAT32, LOGITS_CHUNK_TOKENS, SLOT_RANKS, MemoryDemand, Part, columns, total
from rft_planner.precision import WIDTHS
from rft_planner.shapes import Shape
from rft_planner.sizes import MIB

MICRO_BATCH_TOKENS = 1024
"""Number of tokens in a micro-batch that are enough to keep all cores of a CPU busy."""
SEQUENCES = 128
"""Number of completions that vLLM generates concurrently on the CPU (``max_num_seqs``)."""
BATCH_TOKENS = 2048
"""Minimum of vLLM's ``max_num_batched_tokens`` on the CPU. If the context length is larger, it is used."""
CPU_CACHE_BLOCK = 32
"""Number of tokens in one block of vLLM's key-value cache on the CPU."""
IN_PROCESS_SEQUENCES = 32
"""Number of completions that the engine ``transformers`` generates concurrently."""
INTERPRETERS = {"trainer": 425 * MIB, "vllm": 1040 * MIB}
"""Bytes of the processes after their imports, without a model. Measured by ``bench/memory.py --baselines``.

The trainer is python with torch, transformers and peft. vLLM is its API server and its engine, with their
helper processes."""
SHARED_LIBRARIES = 30 * MIB
"""Bytes of library files that trainer and vLLM both map. They are counted only once, for vLLM."""
GENERATION_KERNELS = 60 * MIB
"""Additional bytes of a trainer that generates in bfloat16: oneDNN compiles a kernel for each number of
sequences. In float32 nothing is added, because MKL has its own kernels. Measured in both dtypes by
``bench/memory.py --baselines``."""
TOKENIZERS = {"trainer": 1024, "vllm": 3400}
"""Bytes of the tokenizers for each entry of the vocabulary. The trainer has one tokenizer, vLLM has two: in
the API server and in the engine. Measured with 4,000, 32,000 and 64,000 words, and with SmolLM2."""
SLACK = 0.1
"""Addition for tcmalloc's unused pages and small tensors, as a share of an update's temporary memory."""
WEIGHTS_SLACK = 0.08
"""Addition for memory that tcmalloc keeps after the weights are converted, as a share of the weights."""
MARGIN = 0.05
"""Addition for the page cache of files, as a share of the sum of all other parts. The page cache counts for
the pod's memory limit."""
SHARED_MEMORY = 64 * MIB
"""Bytes of shared memory between vLLM's processes. They count for the pod's memory limit."""


@dataclass(frozen=True)
class HostRun:
    """The settings of a run on the CPU that decide how much memory it needs. Lengths are in tokens."""

    work: MemoryDemand
    max_tokens: int
    """Maximum length of one completion."""
    batch_tokens: int
    """Number of tokens in the batch of one step."""
    reference: bool
    """Whether the loss has a KL term. If so, logits of the reference policy are computed too."""
    sorts: bool
    """Whether sampling sorts the whole vocabulary, because top-p is on and top-k is off."""
    unfiltered: bool
    """Whether top-k and top-p are both off. If so, the entropy is computed over the whole vocabulary."""
    in_process: bool
    """Whether the trainer's process also samples, because ``sampling.engine`` is ``transformers``."""
    beside: float = 0.0
    """Bytes of the grader and tracker processes in the trainer's container."""
    dtype: Dtype = "float32"
    """Dtype of the base model's weights in trainer and sampler."""

    @property
    def width(self) -> int:
        """Number of bytes of one value in the run's dtype. Formulas call this number w."""
        return WIDTHS[self.dtype]


@dataclass(frozen=True)
class HostSize:
    """Possible sizes of micro-batch and sampler cache, in tokens, for a run on the CPU.

    ``parts`` are all parts of the memory that the trainer's container needs with these sizes.
    """

    micro_batch: int
    cache_tokens: int
    parts: tuple[Part, ...]

    @property
    def memory(self) -> float:
        """Total memory of the container in bytes: the processes, /dev/shm and the margin for page cache."""
        return total(self.parts)


def host_run(spec: RFTJobSpec, derived: Effective, dtype: Dtype) -> HostRun:
    """Return the settings of ``spec`` that decide the memory of a run on the CPU in ``dtype``."""
    training, sampling = spec.training, spec.sampling
    return HostRun(
        work=MemoryDemand(
            training.lora_rank,
            derived.max_context_length,
            sampling.num_rollouts,
            attention_only=training.lora_targets == "attention",
        ),
        max_tokens=sampling.max_tokens,
        batch_tokens=training.batch_size_tokens,
        reference=derived.kl_beta > 0,
        sorts=sampling.top_k == 0 and 0 < sampling.top_p < 1,
        unfiltered=sampling.top_k == 0 and sampling.top_p == 1,
        in_process=sampling.engine == "transformers",
        beside=beside(spec),
        dtype=dtype,
    )


def beside(spec: RFTJobSpec) -> float:
    """Return the maximum bytes of the processes of built-in graders and trackers in the trainer's container.

    The numbers are the private memory of real processes. A worker of the grader math or jsonSchema needs 190
    MiB, and each such grader has two workers. The tracker W&B needs 60 MiB, MLflow 73 MiB and TensorBoard 35
    MiB. Graders with users' code are not included, because they have their own container.
    """
    workers = sum(2 * (grader.math is not None or grader.json_schema is not None) for grader in spec.graders)
    tracking = spec.tracking
    kinds = (tracking.wandb, tracking.mlflow, tracking.tensorboard) if tracking is not None else ()
    trackers = sum(size for size, kind in zip((60, 73, 35), kinds, strict=False) if kind is not None)
    return MIB * (190 * workers + trackers)


def sizes(shape: Shape, run: HostRun) -> Iterator[HostSize]:
    """Yield possible sizes of micro-batch and sampler cache, from the recommended ones to the smallest.

    Each size is half of the size before it, but not below a minimum. The minimum of the micro-batch is one
    sequence of the maximum length. The minimum of the cache is all rollouts of one prompt, each of the
    maximum length.
    """
    tokens, cache = comfortable(run)
    group = run.work.rollouts * run.work.context
    while True:
        yield HostSize(tokens, cache, tuple(parts(shape, run, tokens, cache)))
        if tokens <= run.work.context and cache <= group:
            return
        tokens, cache = max(tokens // 2, run.work.context), max(cache // 2, group)


def comfortable(run: HostRun) -> tuple[int, int]:
    """Return the recommended sizes of the micro-batch and of the sampler's cache, in tokens.

    Larger sizes do not make a run faster. The cache has room for all rollouts of a step, but for at most 128
    rollouts of the maximum length (``SEQUENCES``), because vLLM generates no more at the same time.
    """
    context = run.work.context
    cache = min(SEQUENCES * context, max(run.batch_tokens, run.work.rollouts * context))
    return max(MICRO_BATCH_TOKENS, context), cache


def parts(shape: Shape, run: HostRun, tokens: int, cache_tokens: int) -> list[Part]:
    """Return all parts of the memory that the trainer's container needs in a run on the CPU.

    These are the trainer, the sampler, graders and trackers, shared memory, and a margin for the page cache.

    - ``tokens``: the number of tokens of a micro-batch
    - ``cache_tokens``: the number of tokens for which vLLM's key-value cache has room
    """
    sampled = in_process_sampling(shape, run) if run.in_process else vllm(shape, run, cache_tokens)
    others = [Part("graders and trackers", run.beside)] if run.beside else []
    held = [*trainer(shape, run, tokens), *sampled, *others, Part("shared memory", SHARED_MEMORY)]
    return [*held, Part("margin for page cache", MARGIN * total(held))]


def trainer(shape: Shape, run: HostRun, tokens: int) -> list[Part]:
    """Return the parts of the memory that the trainer's process needs.

    ``tokens`` is the number of tokens of a micro-batch. The temporary memory is that of an update. If the
    process also samples, it is that of an update or of sampling, whichever is larger.
    """
    passing = passing_memory(shape, run, tokens)
    converting = 0 if mapped(shape, run) else WEIGHTS_SLACK * run.width * shape.parameters
    if run.in_process:  # in one process sampling and training take turns
        passing = max(passing, in_process_generation(shape, run), key=total)
    return [
        Part("training: interpreter", INTERPRETERS["trainer"] - (0 if run.in_process else SHARED_LIBRARIES)),
        Part("training: tokenizer", TOKENIZERS["trainer"] * shape.vocabulary),
        Part("training: base weights", run.width * shape.parameters),
        Part("training: adapter and optimizer", adapter_and_optimizer(shape, run)),
        *passing,
        Part("training: allocator", SLACK * total(passing) + converting),
    ]


def mapped(shape: Shape, run: HostRun) -> bool:
    """Return whether trainer and sampler share the base weights, as mapped pages of the model's file.

    They do if the weights in the file already have the run's dtype. Otherwise each of them converts the
    weights into its own copy.
    """
    return shape.stored == run.dtype


def passing_memory(shape: Shape, run: HostRun, tokens: int) -> list[Part]:
    """Return the parts of the temporary memory of an update. A micro-batch has ``tokens`` tokens."""
    return [
        Part("training: saved activations", saved_activations(shape, run, tokens)),
        Part("training: attention mask", attention_mask(run, tokens)),
        Part("training: logits, or one layer's gradients", backward_peak(shape, run, tokens)),
    ]


def adapter_and_optimizer(shape: Shape, run: HostRun) -> float:
    """Return the bytes of the adapter, its gradient and AdamW's two moments: 16 bytes for each parameter."""
    return 4 * FLOAT32 * _adapter(shape, run, run.work.rank)


def _adapter(shape: Shape, run: HostRun, rank: int) -> int:
    return shape.lora_parameters(rank, feed_forward=not run.work.attention_only)


def saved_activations(shape: Shape, run: HostRun, tokens: int) -> float:
    """Return the bytes of the tensors that autograd saves for the backward pass.

    ``tokens`` is the number of tokens of a micro-batch. For each layer and token the result is the sum of the
    terms below. H is the hidden size, Q and K are the columns of all query and key heads, and I is the number
    of feed-forward columns. w is the bytes of one value in the run's dtype. Terms with w are in bytes. The
    other terms are numbers of float32 values, of 4 bytes each.

    - Attention saves query, output, key and value in the run's dtype: w · (2 Q + 2 K).
    - The feed-forward part saves gate, activated gate and up in the run's dtype: w · 3 I.
    - In float32, each adapted matrix saves one value per rank, attention one per head, and each of two
      norms one: 7 rank + heads + 2.
    - In a float32 run, two norms save their input, the adapted matrices save the output of the norms, and the
      last matrix saves its own input: 4 H + I.
    - In a bfloat16 run, two norms save their input. In addition, peft converts the input of each adapted
      matrix to the adapter's float32, and each matrix saves its own copy. Together: 7 H + Q + I.

    The sines and cosines of the positions, two rotary vectors, are saved once for each token, not for each
    layer. The sum was counted with ``torch.autograd.graph.saved_tensors_hooks``. It is exact for
    ``modeling_llama`` in transformers 5.19.
    """
    hidden, query, wide = shape.hidden, shape.heads * shape.head_dim, columns(shape)
    inputs = 4 * hidden + wide if run.dtype == "float32" else 7 * hidden + query + wide
    in_float32 = inputs + 7 * run.work.rank + shape.heads + 2
    key = shape.kv_heads * shape.head_dim
    kept = run.width * (2 * query + 2 * key + 3 * wide) + FLOAT32 * in_float32
    rotary = FLOAT32 * (2 * shape.head_dim + 2)
    return tokens * (shape.layers * kept + rotary)


def attention_mask(run: HostRun, tokens: int) -> float:
    """Return the bytes of the attention mask of a micro-batch: (w + 2) · M².

    w is the bytes of one value in the run's dtype, and M is ``tokens``, the length of the micro-batch. A mask
    is needed because a row may have a prompt once, and then several of its completions.
    """
    return (run.width + 2) * tokens**2


def backward_peak(shape: Shape, run: HostRun, tokens: int) -> float:
    """Return the bytes of the largest temporary tensors in the backward pass of a micro-batch.

    The result is the sum of two float32 tensors of the size of the last hidden states (8 · M · H bytes), and
    the larger one of two amounts: the logits of one chunk, or the gradients of one layer. These two do not
    exist at the same time. The gradients of one layer are 4 · M · (4 I + 2 H) bytes in both dtypes, because
    the gradients of the adapter's inputs are float32. M is ``tokens``, I is the number of feed-forward
    columns that a token uses, and H is the hidden size.
    """
    layer = FLOAT32 * tokens * (4 * columns(shape) + 2 * shape.hidden)
    last = 2 * FLOAT32 * tokens * shape.hidden
    return max(logits_chunk(shape, run, tokens), layer) + last


def logits_chunk(shape: Shape, run: HostRun, tokens: int) -> float:
    """Return the bytes of the logits of one chunk, with their temporary copies: N · V times 38, 20 or 12.

    The trainer computes logits in chunks. N is the number of tokens in a chunk, and V is the size of the
    vocabulary. The factor is:

    - 38 if top-p is on and top-k is off. Top-p then sorts the whole vocabulary: this needs sorted values with
      64-bit indices, gathered values, and gradients.
    - Otherwise 20 if the loss has a KL term, because the reference policy has logits too. Also 20 if top-k
      and top-p are both off, because the entropy is then computed over the whole vocabulary.
    - Otherwise 12: the logits, the scaled logits, and a gradient.

    These numbers are the peaks of torch's allocations in its profiler. They are the same in both dtypes: in
    a bfloat16 run, the logits of 2 bytes are converted to float32 and then freed.
    """
    each = 38 if run.sorts else 20 if run.reference or run.unfiltered else 12
    return each * min(tokens, LOGITS_CHUNK_TOKENS) * shape.vocabulary


def in_process_generation(shape: Shape, run: HostRun) -> list[Part]:
    """Return the parts of the temporary memory of sampling in the trainer's process.

    The engine ``transformers`` samples there. The part for the cache is the larger one of two peaks:

    - At the end, the cache of a batch is full. One layer's cache exists twice while it grows.
    - At the start, the cache is smaller, but all prompts are computed together. The prompts
      need w · (4 H + 3 Q + 3 I) bytes per token.

    w is the bytes of one value, H the hidden size, Q the columns of all query heads, and I the number of
    feed-forward columns that a token uses.
    """
    sequences, context = IN_PROCESS_SEQUENCES, run.work.context
    prompt = max(1, context - run.max_tokens)
    each = run.width * sequences * shape.kv_elements_per_token
    at_the_end = each * context * (1 + 1 / shape.layers)
    at_the_start = each * prompt + run.width * sequences * prompt * _widths(shape)
    return [
        Part("sampling: key-value cache, or prompts", max(at_the_start, at_the_end)),
        Part("sampling: logits", 3 * FLOAT32 * sequences * shape.vocabulary),
    ]


def _widths(shape: Shape) -> int:
    """Return how many values one layer computes for a token: 4 H + 3 Q + 3 I.

    H is the hidden size, Q the columns of all query heads, and I the number of feed-forward columns that a
    token uses. The values are the residual stream, the attention's projections, and gate and up.
    """
    return 4 * shape.hidden + 3 * shape.heads * shape.head_dim + 3 * columns(shape)


def in_process_sampling(shape: Shape, run: HostRun) -> list[Part]:
    """Return the parts of the memory that sampling in the trainer's process also keeps during an update.

    The engine ``transformers`` samples in this process.
    """
    kernels = GENERATION_KERNELS if run.dtype == "bfloat16" else 0
    return [
        Part("sampling: compiled kernels", kernels),
        Part("sampling: base weights", 0 if mapped(shape, run) else run.width * shape.parameters),
        Part("sampling: adapter", FLOAT32 * _adapter(shape, run, run.work.rank)),
    ]


def vllm(shape: Shape, run: HostRun, cache_tokens: int) -> list[Part]:
    """Return the parts of the memory of vLLM's processes in a run on the CPU.

    The whole key-value cache counts, because vLLM writes to all of it when it starts. ``cache_tokens`` is the
    number of tokens for which the cache has room.
    """
    return [
        Part("sampling: interpreters", INTERPRETERS["vllm"]),
        Part("sampling: tokenizers", TOKENIZERS["vllm"] * shape.vocabulary),
        Part("sampling: base weights", run.width * shape.parameters),
        Part("sampling: output layer's copies", packed_output_layer(shape, run)),
        Part("sampling: key-value cache", kv_cache(shape, run.width, cache_tokens)),
        Part("sampling: adapter slots", adapter_slots(shape, run)),
        Part("sampling: a batch of tokens", sampler_batch(shape, run)),
        Part("sampling: logits", sampler_logits(shape, cache_tokens)),
    ]


def packed_output_layer(shape: Shape, run: HostRun) -> float:
    """Return the bytes of the two additional copies of the output layer in vLLM's worker: 2 w · V · H.

    w is the bytes of one value, V the size of the vocabulary, and H the hidden size. The copies exist even if
    the output layer shares the embedding's weights.

    This was measured with vocabularies of 4,000, 32,000 and 64,000 words and with SmolLM2. Before its first
    request, vLLM's worker has the weights in memory, and in addition 2.1 times the output layer. The number
    of layers does not matter.
    """
    return 2 * run.width * shape.embedding_parameters


def kv_cache(shape: Shape, width: int, tokens: int) -> float:
    """Return the bytes of vLLM's key-value cache with room for ``tokens`` tokens.

    ``width`` is the number of bytes of one value. One more block is included, which vLLM keeps empty.
    """
    return width * shape.kv_elements_per_token * cache_slots(tokens)


def cache_slots(tokens: int) -> int:
    """Return the size of vLLM's key-value cache in tokens, if it must have room for ``tokens`` tokens.

    ``tokens`` is rounded up to whole blocks, and one block is added, which vLLM keeps empty.
    """
    return CPU_CACHE_BLOCK * (-(-tokens // CPU_CACHE_BLOCK) + 1)


def adapter_slots(shape: Shape, run: HostRun) -> float:
    """Return the bytes that vLLM needs for adapters: one in use, and two that were read from the disk.

    The rank of the adapters is rounded up to a rank that vLLM supports (``SLOT_RANKS``).
    """
    slot = next((size for size in SLOT_RANKS if size >= run.work.rank), run.work.rank)
    return 3 * run.width * _adapter(shape, run, slot)


def sampler_batch(shape: Shape, run: HostRun) -> float:
    """Return the temporary bytes for vLLM's largest batch of prompts: w · (4 H + 3 Q + 3 I) per token.

    w is the bytes of one value, H the hidden size, Q the columns of all query heads, and I the number of
    feed-forward columns that a token uses.
    """
    return run.width * max(BATCH_TOKENS, run.work.context) * _widths(shape)


def sampler_logits(shape: Shape, cache_tokens: int) -> float:
    """Return the bytes of the logits in vLLM: five float32 copies for each concurrent completion.

    vLLM generates 128 completions (``SEQUENCES``) at the same time, or ``cache_tokens`` if that is less,
    because each one needs room for a token in the key-value cache. The copies are raw logits, processed
    logits, log-probs, and two copies for sorting.
    """
    sequences = min(SEQUENCES, cache_tokens)
    return 5 * FLOAT32 * sequences * shape.vocabulary
