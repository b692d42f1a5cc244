"""Estimates the time of sampling and training, from the FLOPs and the bytes of memory traffic that they need.

Lengths are in tokens, times in seconds.

No result was measured, so a result is only an order of magnitude. A program does not reach the rates in a
GPU's data sheet. ``COMPUTED``, ``READ`` and ``GATHERED`` are the assumed shares of these rates. A result does
not include the time for loading, grading, the writing of adapters, and the exchange of adapters and gradients
between the GPUs that train.
"""

import math
from dataclasses import dataclass, replace

from rft_planner.accelerators import Device
from rft_planner.memory import BF16, SAMPLER_SEQUENCES, base_weights
from rft_planner.shapes import Shape
from rft_planner.split import Split

COMPUTED = 0.25
"""Assumed share of a GPU's bf16 FLOPs per second that computing reaches, in training and in sampling.

Published shares for LoRA: Hugging Face's asynchronous GRPO reaches 19 % with packing. prime-rl trains a 4B
model at a context of 16k with 6,229 tokens/s on one H100. By the formulas here this is a share of 27 %, if
attention skips masked positions."""
READ = 0.5
"""Assumed share of a GPU's memory bandwidth that decoding reaches.

Chen 2026, "Memory-Bound but Not Bandwidth-Limited" (arXiv), measured one sequence with models of 7B to 8B.
Decoding reached 81 % on an L4. It reached 27 % on an H100, where the start of kernels takes most of the time.
"""
GATHERED = 0.5
"""Assumed share of the rate of a GPU's link that is reached when GPUs divide the layers of the base model and
gather them from each other. The number is a guess."""
PASS_SECONDS = 0.005
"""Seconds that vLLM needs for each forward pass of any model, to schedule it and to start its kernels. The
number is a guess."""
EXCHANGE_SECONDS = 2e-5
"""Seconds of one all-reduce among the GPUs of a sampler. The number is a guess. A forward pass needs two
all-reduces in each layer."""


@dataclass(frozen=True)
class Speed:
    """The facts about a run's GPUs from which times are estimated.

    They are the rates of a GPU, and the division of the GPUs between training and sampling.
    """

    gpus: int
    trainers: int
    """Number of GPUs for training."""
    sampler_gpus: int
    """Number of GPUs for sampling, of all samplers together."""
    flops: float
    """FLOPs per second of one GPU, by its data sheet."""
    bandwidth: float
    """Bytes per second of one GPU's memory, by its data sheet."""
    micro_batch: int
    """Number of tokens in one forward pass of training on one GPU."""
    cache_bytes: float
    """Bytes of vLLM's key-value cache on each GPU that samples."""
    samplers: int = 1
    """Number of samplers. Each has ``sampler_gpus // samplers`` GPUs and a part of a step's prompts."""
    link: float | None = None
    """Bytes per second at which a GPU that trains gathers the layers of the base model, by its data sheet.
    None: each GPU that trains has the whole base model, so it gathers nothing."""

    @property
    def tensor_parallel(self) -> int:
        """Number of GPUs that one sampler uses."""
        return self.sampler_gpus // self.samplers

    @property
    def apart(self) -> bool:
        """Whether training and sampling have separate GPUs."""
        return self.trainers + self.sampler_gpus <= self.gpus


@dataclass(frozen=True)
class Lengths:
    """The mean length of a prompt and of a completion, and the maximum length of a completion, in tokens.

    In a job with an environment, a completion is all tokens that the model samples in all turns of a rollout.
    ``longest`` is the maximum length.
    """

    prompt: float
    completion: float
    longest: int
    at_once: int | None = None
    """Largest number of rollouts that run in the environment at the same time. None: the job has none."""

    def at_most(self) -> "Lengths":
        """Return a copy for the longest run: every completion has the maximum length ``longest``."""
        return replace(self, completion=self.longest)


def speed_of(split: Split, device: Device, memory: float) -> Speed:
    """Return the facts about a run's GPUs from which times are estimated.

    ``split`` is the division of the GPUs between training and sampling. ``device`` has the rates of one GPU.
    ``memory`` is the memory of one GPU in bytes, on which the size of the key-value cache depends.
    """
    return Speed(
        gpus=split.gpus,
        trainers=split.trainers,
        sampler_gpus=split.sampler_gpus,
        flops=device.bf16_flops,
        bandwidth=device.bandwidth,
        micro_batch=split.micro_batch,
        cache_bytes=split.cache_bytes(memory),
        samplers=split.samplers,
        link=device.link if split.divided else None,
    )


def spread(work: float, workers: int) -> float:
    """Return how many pieces of work the busiest worker gets, if ``workers`` workers share ``work`` pieces.

    A piece is never divided: with 5 pieces and 4 workers the result is 2. The last piece may be smaller than
    the others: with 4.5 pieces and 4 workers the result is 1.5.
    """
    full, rest = divmod(work, workers)
    return full + min(1.0, rest)


def sampling_seconds(
    shape: Shape, speed: Speed, lengths: Lengths, rounds: int, prompts: float, completions: float
) -> float:
    """Return the seconds to sample ``completions`` completions in all, for ``prompts`` prompts.

    The prompts are divided into ``rounds`` equal batches, for example one batch for each training step. The
    batches are sampled one after the other.

    The times for reading and for computing are added, although reading and computing may overlap. So the
    result is probably too large. A prompt is computed only once for its group, because vLLM's prefix cache
    keeps the prompt. A group is never divided between samplers. The sampler with the most groups decides the
    time.
    """
    busiest = spread(prompts / rounds, speed.samplers) * rounds / prompts if prompts else 1 / speed.samplers
    prompts, completions = prompts * busiest, completions * busiest
    at_once, gpus = concurrent(shape, speed, lengths), speed.tensor_parallel
    passes = max(rounds * lengths.longest, completions * lengths.completion / at_once)
    weights = passes * weights_read(shape, min(at_once, completions / rounds)) / gpus
    read = weights + completions * cache_read(shape, speed, lengths)
    computed = sampling_flops(shape, lengths, prompts, completions)
    exchanged = 2 * shape.layers * EXCHANGE_SECONDS if gpus > 1 else 0.0
    waited = passes * (PASS_SECONDS + exchanged)
    return waited + read / (speed.bandwidth * READ) + computed / (gpus * speed.flops * COMPUTED)


def concurrent(shape: Shape, speed: Speed, lengths: Lengths) -> float:
    """Return how many completions one vLLM server generates concurrently. It may be a fraction, at least 1.

    Three limits apply: the size of the key-value cache, vLLM's ``max_num_seqs``, and the number of rollouts
    that an environment runs at the same time (``lengths.at_once``, divided by the number of servers).
    """
    per_token = BF16 * shape.kv_elements_per_token / min(speed.tensor_parallel, shape.kv_heads)
    room = speed.cache_bytes / (per_token * (lengths.prompt + lengths.completion))
    played = SAMPLER_SEQUENCES if lengths.at_once is None else lengths.at_once / speed.samplers
    return max(1.0, min(SAMPLER_SEQUENCES, room, played))


def weights_read(shape: Shape, sequences: float) -> float:
    """Return the bytes of bf16 weights that one forward pass reads, when completions are generated.

    The pass computes one token for each of ``sequences`` sequences. In a mixture of experts it reads only the
    experts that these tokens use. If each token uses k of E experts, and all experts are equally likely, then
    B tokens use a share of 1 - (1 - k / E)^B of the experts. B is ``sequences``.
    """
    if not shape.experts:
        return BF16 * shape.parameters
    experts = shape.layers * shape.experts * 3 * shape.hidden * shape.expert_intermediate
    idle: float = (1 - shape.experts_per_token / shape.experts) ** sequences
    return BF16 * (shape.parameters - experts * idle)


def cache_read(shape: Shape, speed: Speed, lengths: Lengths) -> float:
    """Return the bytes of cached keys and values that each GPU of a sampler reads to generate one completion.

    A completion of c tokens for a prompt of p tokens reads c · (p + c / 2) cached tokens.
    """
    tokens = lengths.completion * (lengths.prompt + lengths.completion / 2)
    return BF16 * shape.kv_elements_per_token * tokens / min(speed.tensor_parallel, shape.kv_heads)


def sampling_flops(shape: Shape, lengths: Lengths, prompts: float, completions: float) -> float:
    """Return the FLOPs of sampling: to compute each prompt once, and to generate each completion.

    ``prompts`` and ``completions`` are their numbers. Their lengths are in ``lengths``.
    """
    prompt, completion = lengths.prompt, lengths.completion
    prefill = attention_flops(shape, prompt, prompt / 2)
    decode = attention_flops(shape, completion, prompt + completion / 2)
    tokens = prompts * prompt + completions * completion
    return linear_flops(shape, tokens) + prompts * prefill + completions * decode


def linear_flops(shape: Shape, tokens: float) -> float:
    """Return the FLOPs of products with weight matrices, in a forward pass over ``tokens`` tokens.

    Each token needs 2 FLOPs for each parameter that it uses (Kaplan et al. 2020).
    """
    return 2 * shape.active_parameters * tokens


def attention_flops(shape: Shape, tokens: float, seen: float) -> float:
    """Return the FLOPs of attention in a forward pass, for ``tokens`` tokens.

    Each token attends to ``seen`` positions on average. Each pair of token and position needs 4 · layers ·
    heads · head size FLOPs (Kaplan et al. 2020, table 1).
    """
    return 4 * shape.layers * shape.heads * shape.head_dim * tokens * seen


@dataclass(frozen=True)
class Update:
    """The settings of a run that decide the FLOPs of an update, which trains on the rollouts of a step.

    ``rollouts`` is the number of rollouts of each prompt.
    """

    rollouts: int
    adapter: int
    """Number of parameters of the adapter, which are trained."""
    reference: bool
    """Whether log-probs of the reference policy are computed too, because ``klBeta`` is above 0."""
    measured: float = 0.0
    """Share of the rows, from 0 to 1, that need one more forward pass. The pass computes log-probs before the
    first update of a batch."""


def update_seconds(
    shape: Shape, speed: Speed, lengths: Lengths, prompts: float, update: Update, rounds: int = 1
) -> float:
    """Return the seconds to train on ``prompts`` prompts with all of their rollouts, in ``rounds`` steps.

    Each GPU that trains computes one micro-batch at a time. At the end of a step some of these GPUs may have
    no micro-batch left, and wait for the others.

    If the GPUs that train divide the base model, each GPU gathers the next layer while it computes the
    current one. So either gathering or computing, whichever takes longer, decides the time.
    """
    work = prompts * group_flops(shape, speed, lengths, update)
    passes = micro_batches(speed, lengths, prompts / rounds, update.rollouts)
    computed = work * spread(passes, speed.trainers) / passes / (speed.flops * COMPUTED)
    if speed.link is None:
        return computed
    gathered = rounds * math.ceil(passes / speed.trainers) * gathered_bytes(shape, speed.trainers, update)
    return max(computed, gathered / (speed.link * GATHERED))


def gathered_bytes(shape: Shape, trainers: int, update: Update) -> float:
    """Return the bytes of weights that a GPU receives from other GPUs to train on one micro-batch.

    ``trainers`` GPUs divide the layers of the base model. A GPU receives the parts of all other GPUs for the
    forward pass, again for the backward pass, and once more for each further forward pass.
    """
    times = 2 + int(update.reference) + update.measured
    return times * (base_weights(shape) - base_weights(shape, trainers))


def micro_batches(speed: Speed, lengths: Lengths, prompts: float, rollouts: int) -> float:
    """Return the number of micro-batches in a step, which may be a fraction.

    The step trains on ``rollouts`` rollouts for each of ``prompts`` prompts.
    """
    return prompts * rollouts * (lengths.prompt + lengths.completion) / speed.micro_batch


def busy_gpus(speed: Speed, prompts: float, passes: float) -> tuple[float, float]:
    """Return the mean number of GPUs that have work, as a pair: during sampling, and during training.

    The step has ``prompts`` prompts and ``passes`` micro-batches. A sampler without a prompt has no work, and
    a GPU that trains has no work without a micro-batch. A sampler with a single prompt counts as busy,
    although it could generate for more prompts at the same time.
    """
    return speed.sampler_gpus * min(1.0, prompts / speed.samplers), passes / spread(passes, speed.trainers)


def group_flops(shape: Shape, speed: Speed, lengths: Lengths, update: Update) -> float:
    """Return the FLOPs to train on one prompt and its rollouts, in the cheaper one of two layouts of rows.

    1. Each rollout is a row of its own, with the prompt.
    2. The prompt and all of its rollouts are one row, if this row fits into a micro-batch. The FLOPs of this
       layout include pairs of positions that the attention mask hides.
    """
    single = lengths.prompt + lengths.completion
    shared = lengths.prompt + update.rollouts * lengths.completion
    apart = update.rollouts * row_flops(shape, single, update)
    return min(apart, row_flops(shape, shared, update)) if shared <= speed.micro_batch else apart


def row_flops(shape: Shape, tokens: float, update: Update) -> float:
    """Return the FLOPs to train on one row of a micro-batch. The row has ``tokens`` tokens.

    Training computes the forward pass twice, because of gradient checkpointing, and the backward pass once.

    - Products with weights: the backward pass needs as many FLOPs as one forward pass, because the weights of
      the base model get no gradients.
    - Attention: the backward pass needs twice as many FLOPs as one forward pass.
    - The adapter: each parameter needs 2 FLOPs per token in each forward pass, and 4 in the backward pass.
    """
    passes = 3 + int(update.reference) + update.measured
    weights = passes * linear_flops(shape, tokens) + 8 * update.adapter * tokens
    return weights + (passes + 1) * attention_flops(shape, tokens, tokens)
