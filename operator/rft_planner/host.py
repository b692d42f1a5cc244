"""Memory of a run on the CPU, term by term, in bytes: what the trainer's container holds at its fullest.

The letters are those of ``memory``: L layers, H hidden size, Q = heads · head size, I feed-forward columns
that a token uses, V vocabulary, M tokens of a micro-batch, N of them predicted.
The base's weights and what is computed with them are in the run's dtype (``precision``): w is the bytes of
one number of it, 4 in float32 and 2 in bfloat16. The adapter in the trainer is always in float32, and so are
logits once they are scaled. On the CPU no layer is computed twice.
``bench/memory.py`` compares the sum with the proportional set size of the processes, in both dtypes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from rft_api.job import RFTJobSpec
from rft_api.parameters import Dtype
from rft_api.status import Effective
from rft_planner.memory import FLOAT32, LOGITS_CHUNK_TOKENS, SLOT_RANKS, Part, Workload, columns, total
from rft_planner.precision import WIDTHS
from rft_planner.shapes import Shape
from rft_planner.sizes import MIB

MICRO_BATCH_TOKENS = 1024
"""Tokens of a forward pass that keep a CPU's cores busy."""
SEQUENCES = 128
"""Completions that vLLM works on at once on the CPU (``max_num_seqs``)."""
BATCH_TOKENS = 2048
"""The least ``max_num_batched_tokens`` of vLLM's server on the CPU; never less than a context."""
CPU_CACHE_BLOCK = 32
"""Tokens of one block of vLLM's key-value cache on the CPU."""
IN_PROCESS_SEQUENCES = 32
"""Completions that the second engine, plain ``transformers``, works on at once."""
INTERPRETERS = {"trainer": 425 * MIB, "vllm": 1040 * MIB}
"""Processes that imported what theirs does and hold no model: python with torch, transformers and peft;
vLLM's API server and engine with their helpers. Measured by ``bench/memory.py --baselines``."""
SHARED_LIBRARIES = 30 * MIB
"""The part of the trainer's libraries that is counted for vLLM, because its processes map the same files."""
GENERATION_KERNELS = 60 * MIB
"""Additional memory of a trainer that generates in bfloat16: oneDNN compiles a kernel for each number of
sequences. In float32 MKL has kernels of its own. From ``--baselines`` in both dtypes."""
TOKENIZERS = {"trainer": 1024, "vllm": 3400}
"""For each entry of the vocabulary: a tokenizer in the trainer, and one each in vLLM's API server and engine.
From their sizes with vocabularies of 4,000, 32,000 and 64,000 words, and of SmolLM2."""
SLACK = 0.1
"""Of what comes and goes in an update: pages tcmalloc keeps, and what is too small to be listed."""
WEIGHTS_SLACK = 0.08
"""Of the weights in the trainer's process: what tcmalloc keeps of reading and converting them."""
MARGIN = 0.05
"""Of the whole: page cache of rows, checkpoints and code that the pod's limit counts too."""
SHARED_MEMORY = 64 * MIB
"""What vLLM's processes share to talk to each other; the pod's limit counts it."""


@dataclass(frozen=True)
class HostRun:
    """What a run on the CPU asks of its memory, beside the model's shape; lengths in tokens."""

    work: Workload
    max_tokens: int
    batch_tokens: int
    """Tokens of an optimizer step."""
    reference: bool
    """Whether a KL term computes logits of the reference too."""
    sorts: bool
    """Whether top-p sorts the whole vocabulary, which top-k would have cut before."""
    unfiltered: bool
    """Whether neither top-k nor top-p is on: the entropy is then of the whole vocabulary."""
    in_process: bool
    """Whether ``sampling.engine`` is ``transformers``."""
    beside: float = 0.0
    """Bytes of the processes of graders and trackers in the trainer's container."""
    dtype: Dtype = "float32"
    """Of the base's weights in trainer and sampler."""

    @property
    def width(self) -> int:
        """w: bytes of one number in the run's dtype."""
        return WIDTHS[self.dtype]


@dataclass(frozen=True)
class HostSize:
    """One way to run it: the micro-batch, and the sampler's cache, in tokens; and what that takes."""

    micro_batch: int
    cache_tokens: int
    parts: tuple[Part, ...]

    @property
    def memory(self) -> float:
        """Bytes of the container: the processes, /dev/shm and the margin."""
        return total(self.parts)


def host_run(spec: RFTJobSpec, derived: Effective, dtype: Dtype) -> HostRun:
    """Return what ``spec`` asks of a CPU's memory when it computes in ``dtype``."""
    training, sampling = spec.training, spec.sampling
    return HostRun(
        work=Workload(
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
    """Return what graders of ours that work in processes of their own, and trackers, hold at most.

    A worker with a symbolic or schema library 190 MiB, two for each such grader; W&B 60, MLflow 73 and
    TensorBoard 35 MiB: private memory of the real processes. Users' code has a container of its own.
    """
    workers = sum(2 * (grader.math is not None or grader.json_schema is not None) for grader in spec.graders)
    tracking = spec.tracking
    kinds = (tracking.wandb, tracking.mlflow, tracking.tensorboard) if tracking is not None else ()
    trackers = sum(size for size, kind in zip((60, 73, 35), kinds, strict=False) if kind is not None)
    return MIB * (190 * workers + trackers)


def sizes(shape: Shape, run: HostRun) -> Iterator[HostSize]:
    """Yield ways to run it, the comfortable one first; micro-batch and cache are halved down to the least.

    The least micro-batch is one longest sequence, the least cache one group of them.
    """
    tokens, cache = comfortable(run)
    group = run.work.rollouts * run.work.context
    while True:
        yield HostSize(tokens, cache, tuple(parts(shape, run, tokens, cache)))
        if tokens <= run.work.context and cache <= group:
            return
        tokens, cache = max(tokens // 2, run.work.context), max(cache // 2, group)


def comfortable(run: HostRun) -> tuple[int, int]:
    """Return micro-batch and cache, in tokens, that slow nothing down: a step's tokens find room."""
    context = run.work.context
    cache = min(SEQUENCES * context, max(run.batch_tokens, run.work.rollouts * context))
    return max(MICRO_BATCH_TOKENS, context), cache


def parts(shape: Shape, run: HostRun, tokens: int, cache_tokens: int) -> list[Part]:
    """Return the sum of a container whose trainer works on ``tokens`` at once."""
    sampled = in_process_sampling(shape, run) if run.in_process else vllm(shape, run, cache_tokens)
    others = [Part("graders and trackers", run.beside)] if run.beside else []
    held = [*trainer(shape, run, tokens), *sampled, *others, Part("shared memory", SHARED_MEMORY)]
    return [*held, Part("margin for page cache", MARGIN * total(held))]


def trainer(shape: Shape, run: HostRun, tokens: int) -> list[Part]:
    """Return the parts of the trainer's process during an update."""
    passing = passing_memory(shape, run, tokens)
    converting = 0 if mapped(shape, run) else WEIGHTS_SLACK * run.width * shape.parameters
    if run.in_process:  # it samples and trains in turn
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
    """Return whether the weights stay in the pages of the checkpoint's file, which all that load it share.

    So it is where the file has them in the run's dtype; else they are converted, a copy for each.
    """
    return shape.stored == run.dtype


def passing_memory(shape: Shape, run: HostRun, tokens: int) -> list[Part]:
    """Return what an update with micro-batches of ``tokens`` holds for a moment."""
    return [
        Part("training: saved activations", saved_activations(shape, run, tokens)),
        Part("training: attention mask", attention_mask(run, tokens)),
        Part("training: logits, or one layer's gradients", backward_peak(shape, run, tokens)),
    ]


def adapter_and_optimizer(shape: Shape, run: HostRun) -> float:
    """Adapter, gradient, AdamW's two moments: 16 bytes a parameter."""
    return 4 * FLOAT32 * _adapter(shape, run, run.work.rank)


def _adapter(shape: Shape, run: HostRun, rank: int) -> int:
    return shape.lora_parameters(rank, feed_forward=not run.work.attention_only)


def saved_activations(shape: Shape, run: HostRun, tokens: int) -> float:
    """What autograd keeps of every layer, L · M times, in bytes.

    In the run's dtype attention keeps query and output, key and value: w · (2 Q + 2 K), where a key has K
    columns. The feed-forward part keeps gate, its activation and up: w · 3 I. The rest is in float32. Each
    adapted matrix keeps a row of its rank, attention a number for each head, two norms one each:
    7 rank + heads + 2. In float32 two norms keep their input, adapted matrices the norms' output, and the
    last matrix its own input: 4 H + I. In bfloat16 peft casts the input of each adapted matrix to the
    adapter's float32, and each keeps its copy: 7 H + Q + I. Besides, once, the sines and cosines of the
    positions. Counted with
    ``torch.autograd.graph.saved_tensors_hooks``; equal for ``modeling_llama`` in transformers 5.19.
    """
    hidden, query, wide = shape.hidden, shape.heads * shape.head_dim, columns(shape)
    inputs = 4 * hidden + wide if run.dtype == "float32" else 7 * hidden + query + wide
    in_float32 = inputs + 7 * run.work.rank + shape.heads + 2
    key = shape.kv_heads * shape.head_dim
    kept = run.width * (2 * query + 2 * key + 3 * wide) + FLOAT32 * in_float32
    rotary = FLOAT32 * (2 * shape.head_dim + 2)
    return tokens * (shape.layers * kept + rotary)


def attention_mask(run: HostRun, tokens: int) -> float:
    """The mask of a row whose rollouts share their prompt: (w + 2) · M², two of it as booleans while made."""
    return (run.width + 2) * tokens**2


def backward_peak(shape: Shape, run: HostRun, tokens: int) -> float:
    """The larger of logits and one layer's gradients, which follow each other, and the last hidden states.

    One layer: 4 · M · (4 I + 2 H) bytes in both dtypes, since the gradients of the adapter's inputs are
    float32.
    """
    layer = FLOAT32 * tokens * (4 * columns(shape) + 2 * shape.hidden)
    last = 2 * FLOAT32 * tokens * shape.hidden
    return max(logits_chunk(shape, run, tokens), layer) + last


def logits_chunk(shape: Shape, run: HostRun, tokens: int) -> float:
    """Logits of one chunk: N · V · 12 bytes; 20 with a reference or without a filter; 38 where top-p sorts.

    12 bytes: the logits, the scaled logits, and a gradient. 8 more: the reference's logits, or the entropy
    over the whole vocabulary. 26 more for top-p: sorted values with 64-bit indices, gathered values, and
    their gradients. These are the peaks of torch's allocations in its profiler. They are the same in both
    dtypes: in bfloat16 the logits of 2 bytes are converted to float32 and freed.
    """
    each = 38 if run.sorts else 20 if run.reference or run.unfiltered else 12
    return each * min(tokens, LOGITS_CHUNK_TOKENS) * shape.vocabulary


def in_process_generation(shape: Shape, run: HostRun) -> list[Part]:
    """Return what the second engine holds for a moment while it generates.

    The cache of a batch, of one layer twice while it grows; and before, when there is less of it, all
    prompts at once: w · (4 H + 3 Q + 3 I) bytes a token.
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
    """Columns of what a layer holds of a token while it is computed: residual, projections, gate and up."""
    return 4 * shape.hidden + 3 * shape.heads * shape.head_dim + 3 * columns(shape)


def in_process_sampling(shape: Shape, run: HostRun) -> list[Part]:
    """Return the parts of the second engine, which waits in the trainer's process during an update."""
    kernels = GENERATION_KERNELS if run.dtype == "bfloat16" else 0
    return [
        Part("sampling: compiled kernels", kernels),
        Part("sampling: base weights", 0 if mapped(shape, run) else run.width * shape.parameters),
        Part("sampling: adapter", FLOAT32 * _adapter(shape, run, run.work.rank)),
    ]


def vllm(shape: Shape, run: HostRun, cache_tokens: int) -> list[Part]:
    """Return the parts of vLLM's processes; the cache is filled with zeros at the start."""
    return [
        Part("sampling: interpreters", INTERPRETERS["vllm"]),
        Part("sampling: tokenizers", TOKENIZERS["vllm"] * shape.vocabulary),
        Part("sampling: base weights", run.width * shape.parameters),
        Part("sampling: output layer's copies", packed_output_layer(shape, run)),
        Part("sampling: key-value cache", kv_cache(shape, run, cache_tokens)),
        Part("sampling: adapter slots", adapter_slots(shape, run)),
        Part("sampling: a batch of tokens", sampler_batch(shape, run)),
        Part("sampling: logits", sampler_logits(shape, cache_tokens)),
    ]


def packed_output_layer(shape: Shape, run: HostRun) -> float:
    """Two more copies of the output layer, 2 w · V · H bytes, also where it is the embedding.

    Measured: vLLM's worker holds, before its first request, the weights and 2.1 times the output layer, with
    vocabularies of 4,000, 32,000 and 64,000 and with SmolLM2; not more for more layers.
    """
    return 2 * run.width * shape.embedding_parameters


def kv_cache(shape: Shape, run: HostRun, tokens: int) -> float:
    """Keys and values of so many tokens; one block more, which vLLM keeps empty."""
    return run.width * shape.kv_elements_per_token * cache_slots(tokens)


def cache_slots(tokens: int) -> int:
    """Return ``tokens`` in whole blocks, with the empty one."""
    return CPU_CACHE_BLOCK * (-(-tokens // CPU_CACHE_BLOCK) + 1)


def adapter_slots(shape: Shape, run: HostRun) -> float:
    """The slot in use and two versions read from disk, each as large as vLLM's next rank."""
    slot = next((size for size in SLOT_RANKS if size >= run.work.rank), run.work.rank)
    return 3 * run.width * _adapter(shape, run, slot)


def sampler_batch(shape: Shape, run: HostRun) -> float:
    """Prompts computed at once: w · (4 H + 3 Q + 3 I) bytes a token, at most what a batch may hold."""
    return run.width * max(BATCH_TOKENS, run.work.context) * _widths(shape)


def sampler_logits(shape: Shape, cache_tokens: int) -> float:
    """Float32 logits of the completions at work: as they come, processed, log-probs, two to sort."""
    sequences = min(SEQUENCES, cache_tokens)
    return 5 * FLOAT32 * sequences * shape.vocabulary
