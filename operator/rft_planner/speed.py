"""How long sampling and training take, from what they compute and read.

Letters as in ``memory``: L layers, Q = heads · head size, P the parameters that a token is multiplied with.
Lengths are in tokens, times in seconds. Nothing here was measured by us: two shares of a device's data sheet
stand for what keeps a program from reaching it, so a result is an order of magnitude. Loading, grading,
communication between GPUs and the writing of adapters are not counted.
"""

from dataclasses import dataclass, replace

from rft_planner.accelerators import Device
from rft_planner.memory import BF16, SAMPLER_SEQUENCES
from rft_planner.shapes import Shape
from rft_planner.split import Split

COMPUTED = 0.25
"""Share of a device's bf16 rate that is reached.

Published for LoRA: Hugging Face's asynchronous GRPO 19 % with packing; prime-rl's 6,229 tokens/s of a 4B
model at a context of 16k on one H100 are 27 % by the formulas here, if attention skips what its mask hides.
"""
READ = 0.5
"""Share of a device's bandwidth that decoding reaches.

Chen 2026, "Memory-Bound but Not Bandwidth-Limited" (arXiv), for one sequence and models of 7B to 8B: 27 % on
an H100, where starting kernels takes most of a pass, and 81 % on an L4, where it does not.
"""
PASS_SECONDS = 0.005
"""What vLLM takes for a pass whatever the model, to schedule it and start its kernels. Ours, no source."""


@dataclass(frozen=True)
class Speed:
    """What a division of GPUs can do."""

    gpus: int
    trainers: int
    samplers: int
    flops: float
    """Per second and GPU, as the data sheet says."""
    bandwidth: float
    """Bytes per second and GPU, as the data sheet says."""
    micro_batch: int
    """Tokens of one forward pass of training, on one GPU."""
    cache_bytes: float
    """Room for keys and values on each GPU that samples."""


@dataclass(frozen=True)
class Lengths:
    """Mean prompt and completion, and the longest completion that may be."""

    prompt: float
    completion: float
    longest: int

    def at_most(self) -> "Lengths":
        """The same with every completion as long as it may be."""
        return replace(self, completion=self.longest)


def speed_of(split: Split, device: Device, memory: float) -> Speed:
    """Return what ``split`` can do on devices of ``memory`` bytes."""
    sampled = [part for part in split.parts if part.name.startswith("sampling")]
    fixed = sum(part.bytes for part in sampled if "key-value cache" not in part.name)
    return Speed(
        gpus=split.gpus,
        trainers=split.trainers,
        samplers=split.samplers,
        flops=device.bf16_flops,
        bandwidth=device.bandwidth,
        micro_batch=split.micro_batch,
        cache_bytes=max(0.0, split.sampler_share * memory - fixed),
    )


def sampling_seconds(
    shape: Shape, speed: Speed, lengths: Lengths, rounds: int, prompts: float, completions: float
) -> float:
    """Time to sample ``completions`` of ``prompts`` in ``rounds``, one after the other.

    Reading and computing are added, the slower of the two ways in which they can meet. A group's prompt is
    computed once: vLLM's prefix cache has it for the other rollouts.
    """
    at_once = concurrent(shape, speed, lengths)
    passes = max(rounds * lengths.longest, completions * lengths.completion / at_once)
    weights = passes * weights_read(shape, min(at_once, completions / rounds)) / speed.samplers
    read = weights + completions * cache_read(shape, speed, lengths)
    computed = sampling_flops(shape, lengths, prompts, completions)
    seconds = computed / (speed.samplers * speed.flops * COMPUTED)
    return passes * PASS_SECONDS + read / (speed.bandwidth * READ) + seconds


def concurrent(shape: Shape, speed: Speed, lengths: Lengths) -> float:
    """Completions that vLLM works on at once: what its cache has room for, at most ``max_num_seqs``."""
    per_token = BF16 * shape.kv_elements_per_token / min(speed.samplers, shape.kv_heads)
    room = speed.cache_bytes / (per_token * (lengths.prompt + lengths.completion))
    return min(SAMPLER_SEQUENCES, max(1.0, room))


def weights_read(shape: Shape, sequences: float) -> float:
    """Bytes of weights that one pass reads, in bf16: all, but of a mixture only the experts that are taken.

    Of E experts, k per token, B tokens take a share of 1 - (1 - k / E)^B, if all are as likely.
    """
    if not shape.experts:
        return BF16 * shape.parameters
    experts = shape.layers * shape.experts * 3 * shape.hidden * shape.expert_intermediate
    idle: float = (1 - shape.experts_per_token / shape.experts) ** sequences
    return BF16 * (shape.parameters - experts * idle)


def cache_read(shape: Shape, speed: Speed, lengths: Lengths) -> float:
    """Bytes of keys and values that one completion of c tokens reads on each GPU: c · (p + c / 2) tokens."""
    tokens = lengths.completion * (lengths.prompt + lengths.completion / 2)
    return BF16 * shape.kv_elements_per_token * tokens / min(speed.samplers, shape.kv_heads)


def sampling_flops(shape: Shape, lengths: Lengths, prompts: float, completions: float) -> float:
    """Floating-point operations to compute each prompt once and each completion, with causal attention."""
    prompt, completion = lengths.prompt, lengths.completion
    prefill = attention_flops(shape, prompt, prompt / 2)
    decode = attention_flops(shape, completion, prompt + completion / 2)
    tokens = prompts * prompt + completions * completion
    return linear_flops(shape, tokens) + prompts * prefill + completions * decode


def linear_flops(shape: Shape, tokens: float) -> float:
    """Operations of a forward pass in matrix products with weights: 2 · P per token (Kaplan et al. 2020)."""
    return 2 * shape.active_parameters * tokens


def attention_flops(shape: Shape, tokens: float, seen: float) -> float:
    """Operations of a forward pass in attention: 4 · L · Q per token and position that it is compared with.

    Kaplan et al. 2020, table 1; ``seen`` is the mean number of those positions.
    """
    return 4 * shape.layers * shape.heads * shape.head_dim * tokens * seen


@dataclass(frozen=True)
class Update:
    """What of a run decides over the work of an update besides its lengths."""

    rollouts: int
    adapter: int
    """Parameters that learn."""
    reference: bool
    """Whether the reference policy is computed, for ``klBeta`` above 0."""


def update_seconds(shape: Shape, speed: Speed, lengths: Lengths, prompts: float, update: Update) -> float:
    """Time to train on ``prompts`` with all of their rollouts."""
    work = prompts * group_flops(shape, speed, lengths, update)
    return work / (speed.trainers * speed.flops * COMPUTED)


def group_flops(shape: Shape, speed: Speed, lengths: Lengths, update: Update) -> float:
    """Operations for one prompt and its rollouts, laid out as the trainer does: whichever takes less.

    Either each rollout is a row of its own, or one row holds the prompt and all of them, if a micro-batch
    does. What a row's mask hides is computed all the same.
    """
    single = lengths.prompt + lengths.completion
    shared = lengths.prompt + update.rollouts * lengths.completion
    apart = update.rollouts * row_flops(shape, single, update)
    return min(apart, row_flops(shape, shared, update)) if shared <= speed.micro_batch else apart


def row_flops(shape: Shape, tokens: float, update: Update) -> float:
    """Operations for one row: forward, once more in the backward pass, and that pass itself.

    The base's weights have no gradients, so backward takes as much as forward in products with weights, and
    twice as much in attention. Each of the adapter's parameters takes 2, 2 and 4 a token.
    """
    passes = 3 + int(update.reference)
    weights = passes * linear_flops(shape, tokens) + 8 * update.adapter * tokens
    return weights + (passes + 1) * attention_flops(shape, tokens, tokens)
