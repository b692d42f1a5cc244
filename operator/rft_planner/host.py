"""Memory of a run on the CPU, term by term, in bytes: what the trainer's container holds at its fullest.

The letters are those of ``memory``: L layers, H hidden size, Q = heads · head size, I feed-forward columns
that a token uses, V vocabulary, M tokens of a micro-batch, N of them predicted.
Everything is in float32, as where bfloat16 is emulated; on the CPU no layer is computed twice.
``bench/memory.py`` compares the sum with the proportional set size of the processes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from rft_api.job import RFTJobSpec
from rft_api.status import Effective
from rft_planner.memory import FLOAT32, LOGITS_CHUNK_TOKENS, SLOT_RANKS, Part, Workload, columns, total
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
INTERPRETERS = {"trainer": 380 * MIB, "vllm": 1010 * MIB}
"""Processes that imported what theirs does and hold no model: python with torch, transformers and peft;
vLLM's API server and engine with their helpers. Measured by ``bench/memory.py --baselines``."""
TOKENIZERS = {"trainer": 1024, "vllm": 3400}
"""For each entry of the vocabulary: a tokenizer in the trainer, and one each in vLLM's API server and engine.
From their sizes with vocabularies of 4,000, 32,000 and 64,000 words, and of SmolLM2."""
SLACK = 0.1
"""Of what comes and goes in an update: pages tcmalloc keeps, and what is too small to be listed."""
WEIGHTS_SLACK = 0.08
"""Of the weights in the trainer's process: what tcmalloc keeps of reading and widening them."""
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
    in_process: bool
    """Whether ``sampling.engine`` is ``transformers``."""
    beside: float = 0.0
    """Bytes of the processes of graders and trackers in the trainer's container."""


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


def host_run(spec: RFTJobSpec, derived: Effective) -> HostRun:
    """Return what ``spec`` asks of a CPU's memory."""
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
        in_process=sampling.engine == "transformers",
        beside=beside(spec),
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
    if run.in_process:  # it samples and trains in turn
        passing = max(passing, in_process_generation(shape, run), key=total)
    return [
        Part("training: interpreter", INTERPRETERS["trainer"]),
        Part("training: tokenizer", TOKENIZERS["trainer"] * shape.vocabulary),
        Part("training: base weights", FLOAT32 * shape.parameters),
        Part("training: adapter and optimizer", adapter_and_optimizer(shape, run)),
        *passing,
        Part("training: allocator", SLACK * total(passing) + WEIGHTS_SLACK * FLOAT32 * shape.parameters),
    ]


def passing_memory(shape: Shape, run: HostRun, tokens: int) -> list[Part]:
    """Return what an update with micro-batches of ``tokens`` holds for a moment."""
    return [
        Part("training: saved activations", saved_activations(shape, run, tokens)),
        Part("training: attention mask", attention_mask(tokens)),
        Part("training: logits, or one layer's gradients", backward_peak(shape, run, tokens)),
    ]


def adapter_and_optimizer(shape: Shape, run: HostRun) -> float:
    """Adapter, gradient, AdamW's two moments: 16 bytes a parameter."""
    return 4 * FLOAT32 * _adapter(shape, run, run.work.rank)


def _adapter(shape: Shape, run: HostRun, rank: int) -> int:
    return shape.lora_parameters(rank, feed_forward=not run.work.attention_only)


def saved_activations(shape: Shape, run: HostRun, tokens: int) -> float:
    """What autograd keeps of every layer: 4 · L · M · (4 H + 4 Q + 4 I + 7 rank + heads + 2) bytes.

    Two norms keep their input and hand their output, 4 H, to adapted matrices, which keep it; attention keeps
    query, key and value, repeated to Q columns where a mask hides siblings, and its output, 4 Q; gate, its
    activation, up and their product, 4 I; each adapted matrix a row of its rank. Besides, once, the sines and
    cosines of the positions. Counted with
    ``torch.autograd.graph.saved_tensors_hooks``; equal for ``modeling_llama`` in transformers 5.19.
    """
    hidden, query = shape.hidden, shape.heads * shape.head_dim
    kept = 4 * (hidden + query + columns(shape)) + 7 * run.work.rank + shape.heads + 2
    rotary = 2 * shape.head_dim + 2
    return FLOAT32 * tokens * (shape.layers * kept + rotary)


def attention_mask(tokens: int) -> float:
    """The mask of a row whose rollouts share their prompt: M² in float32, and as booleans while made."""
    return (FLOAT32 + 2) * tokens**2


def backward_peak(shape: Shape, run: HostRun, tokens: int) -> float:
    """The larger of logits and one layer's gradients, which follow each other, and the last hidden states.

    One layer: 4 · M · (4 I + 2 H) bytes.
    """
    layer = FLOAT32 * tokens * (4 * columns(shape) + 2 * shape.hidden)
    last = 2 * FLOAT32 * tokens * shape.hidden
    return max(logits_chunk(shape, run, tokens), layer) + last


def logits_chunk(shape: Shape, run: HostRun, tokens: int) -> float:
    """Logits of one chunk: N · V · 12 bytes, 8 more with a reference, 18 more where top-p sorts.

    As they come, scaled, and a gradient; the reference's beside those that are kept; sorted values with
    64-bit indices, gathered ones, and their gradients. Peaks of torch's allocations, measured.
    """
    each = 3 * FLOAT32 + (2 * FLOAT32 if run.reference else 0) + (18 if run.sorts else 0)
    return each * min(tokens, LOGITS_CHUNK_TOKENS) * shape.vocabulary


def in_process_generation(shape: Shape, run: HostRun) -> list[Part]:
    """Return what the second engine holds for a moment while it generates.

    The cache of a batch, of one layer twice while it grows; and before, when there is less of it, all
    prompts at once: 4 · (4 H + 3 Q + 3 I) bytes a token.
    """
    sequences, context = IN_PROCESS_SEQUENCES, run.work.context
    prompt = max(1, context - run.max_tokens)
    each = FLOAT32 * sequences * shape.kv_elements_per_token
    at_the_end = each * context * (1 + 1 / shape.layers)
    at_the_start = each * prompt + FLOAT32 * sequences * prompt * _widths(shape)
    return [
        Part("sampling: key-value cache, or prompts", max(at_the_start, at_the_end)),
        Part("sampling: logits", 3 * FLOAT32 * sequences * shape.vocabulary),
    ]


def _widths(shape: Shape) -> int:
    """Columns of what a layer holds of a token while it is computed: residual, projections, gate and up."""
    return 4 * shape.hidden + 3 * shape.heads * shape.head_dim + 3 * columns(shape)


def in_process_sampling(shape: Shape, run: HostRun) -> list[Part]:
    """Return the parts of the second engine, which waits in the trainer's process during an update."""
    return [
        Part("sampling: base weights", FLOAT32 * shape.parameters),
        Part("sampling: adapter", FLOAT32 * _adapter(shape, run, run.work.rank)),
    ]


def vllm(shape: Shape, run: HostRun, cache_tokens: int) -> list[Part]:
    """Return the parts of vLLM's processes; the cache is filled with zeros at the start."""
    return [
        Part("sampling: interpreters", INTERPRETERS["vllm"]),
        Part("sampling: tokenizers", TOKENIZERS["vllm"] * shape.vocabulary),
        Part("sampling: base weights", FLOAT32 * shape.parameters),
        Part("sampling: output layer's copies", packed_output_layer(shape)),
        Part("sampling: key-value cache", kv_cache(shape, cache_tokens)),
        Part("sampling: adapter slots", adapter_slots(shape, run)),
        Part("sampling: a batch of tokens", sampler_batch(shape, run)),
        Part("sampling: logits", sampler_logits(shape, cache_tokens)),
    ]


def packed_output_layer(shape: Shape) -> float:
    """Two more copies of the output layer, 8 · V · H bytes, also where it is the embedding.

    Measured: vLLM's worker holds, before its first request, the weights and 2.1 times the output layer, with
    vocabularies of 4,000, 32,000 and 64,000 and with SmolLM2; not more for more layers.
    """
    return 2 * FLOAT32 * shape.embedding_parameters


def kv_cache(shape: Shape, tokens: int) -> float:
    """Keys and values of so many tokens in float32; one block more, which vLLM keeps empty."""
    return FLOAT32 * shape.kv_elements_per_token * cache_slots(tokens)


def cache_slots(tokens: int) -> int:
    """Return ``tokens`` in whole blocks, with the empty one."""
    return CPU_CACHE_BLOCK * (-(-tokens // CPU_CACHE_BLOCK) + 1)


def adapter_slots(shape: Shape, run: HostRun) -> float:
    """The slot in use and two versions read from disk, each as large as vLLM's next rank."""
    slot = next((size for size in SLOT_RANKS if size >= run.work.rank), run.work.rank)
    return 3 * FLOAT32 * _adapter(shape, run, slot)


def sampler_batch(shape: Shape, run: HostRun) -> float:
    """Prompts computed at once: 4 · (4 H + 3 Q + 3 I) bytes a token, at most what a batch may hold."""
    return FLOAT32 * max(BATCH_TOKENS, run.work.context) * _widths(shape)


def sampler_logits(shape: Shape, cache_tokens: int) -> float:
    """Float32 logits of the completions at work: as they come, processed, log-probs, two to sort."""
    sequences = min(SEQUENCES, cache_tokens)
    return 5 * FLOAT32 * sequences * shape.vocabulary
