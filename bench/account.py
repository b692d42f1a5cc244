"""Counts the FLOPs and the bytes of one update without a GPU, and estimates the update's time on a GPU.

The model is on torch's meta device: every operation of an update is called with its shapes, but nothing is
computed. torch's flop counter has formulas for the FLOPs of matrix products. The bytes of an operation are
those that it reads and writes, because in eager mode each operation is a kernel of its own.

On a GPU, attention is one kernel, which cannot be called here. The formulas in ``Attention`` compute its
FLOPs and bytes.

There are two estimates of the time. The rates of the GPU come from its data sheet.

- The lower bound: each operation takes at least its FLOPs divided by the GPU's FLOPs per second. It also
  takes at least its bytes divided by the GPU's bandwidth. No GPU reaches this bound.
- The assumed time: the GPU reaches only a part of its rates. ``REACHED`` has this part for each phase. The
  values were assumed, not measured.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import flop_registry

from rft_planner.accelerators import Device
from rft_trainer.learn import arithmetic, attention
from rft_trainer.learn.attention import Forms, Kernels
from rft_trainer.learn.flat import FlatRows, visible_pairs
from rft_trainer.learn.logprobs import CHUNK_TOKENS, token_logprobs
from rft_trainer.learn.packing import Completion, MicroBatch, PackedRow, build
from rft_trainer.rollout.filter import Filter

Phase = Literal["attention", "products", "adapter", "element-wise", "head", "optimizer"]
PHASES: tuple[Phase, ...] = ("attention", "products", "adapter", "element-wise", "head", "optimizer")
REACHED: dict[Phase, float] = {
    "attention": 0.40,
    "products": 0.70,
    "adapter": 0.70,
    "element-wise": 0.75,
    "head": 0.70,
    "optimizer": 0.75,
}
"""For each phase, the share of the data sheet's rates that its kernels are assumed to reach.

The rates are FLOPs per second and bytes per second. The shares were not measured.
"""
PUBLISHED = {"Qwen/Qwen3-0.6B": 13_342, "Qwen/Qwen3-4B": 6_229}
"""By model, tokens per second that the trainer prime-rl published: one H100, context of 16,384, rank 16."""
_PLAIN = Filter(1.0, 0, 1.0)
_ALLOCATIONS = ("empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided")


@dataclass(frozen=True)
class Way:
    """The variant of an update that is counted.

    - ``rounded``: whether the adapter computes in bfloat16.
    - ``ahead``: whether the forward pass also computes the gradients of the log-probs.
    - ``skips``: whether attention skips the pairs of tokens that the mask hides, also in rows with a shared
      prompt.
    - ``entropy``: whether the entropy is computed.
    """

    rounded: bool
    ahead: bool
    skips: bool
    entropy: bool = True


BEFORE = Way(rounded=False, ahead=False, skips=False)
AFTER = Way(rounded=True, ahead=True, skips=True)


@dataclass(frozen=True)
class Attention:
    """Formulas for the attention kernel of one layer and one sequence.

    - ``heads``, ``kv_heads``: number of heads of the query, and of key and value.
    - ``pairs``: the number of pairs of tokens that the kernel computes.
    - ``masked``: whether the kernel reads a dense mask.

    For each pair of tokens and each head, the forward pass computes two products over the ``head_dim``
    numbers of a head, with 2 FLOPs for each number. The backward pass computes five such products: two for
    each product of the forward pass, and one to compute the scores again. Each pass reads its inputs and
    writes its outputs once. A dense mask is in bfloat16, and is read once for each head.
    """

    tokens: int
    heads: int
    kv_heads: int
    head_dim: int
    pairs: float
    masked: bool

    def forward(self) -> tuple[float, float]:
        """Return the FLOPs and the bytes of the forward pass."""
        return 4 * self.heads * self.head_dim * self.pairs, 2 * self._arguments + self._mask

    def backward(self) -> tuple[float, float]:
        """Return the FLOPs and the bytes of the backward pass."""
        return 10 * self.heads * self.head_dim * self.pairs, 4 * self._arguments + self._mask

    @property
    def _arguments(self) -> float:
        """The bytes of query and key in bfloat16. Output and value together have the same number of bytes."""
        return self.tokens * self.head_dim * 2 * (self.heads + self.kv_heads)

    @property
    def _mask(self) -> float:
        return 2 * self.heads * self.tokens**2 if self.masked else 0.0


@dataclass
class Count:
    """Counted FLOPs and bytes, and two estimates of their time on the GPU, in seconds.

    - ``bound``: the lower bound of the time, at the full rates of the GPU's data sheet.
    - ``expected``: the assumed time, at the shares of these rates in ``REACHED``.
    """

    flops: float = 0.0
    bytes: float = 0.0
    bound: float = 0.0
    expected: float = 0.0

    def add(self, other: "Count", times: int = 1) -> None:
        """Add another count, multiplied by ``times``."""
        self.flops += times * other.flops
        self.bytes += times * other.bytes
        self.bound += times * other.bound
        self.expected += times * other.expected


@dataclass
class Account(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the FLOPs and the bytes of all operations in a ``with`` block, by phase.

    A matrix product belongs to the adapter if one of its tensors has a dimension of the size ``rank``, the
    LoRA rank. All operations in a ``during`` block belong to the phase of this block.
    """

    device: Device
    rank: int
    section: Phase | None = None
    counts: dict[Phase, Count] = field(default_factory=lambda: defaultdict(Count))

    def __post_init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    @contextmanager
    def during(self, section: Phase) -> Iterator[None]:
        """In the ``with`` block, count all operations for this phase."""
        before, self.section = self.section, section
        try:
            yield
        finally:
            self.section = before

    def add(self, phase: Phase, flops: float, moved: float) -> None:
        """Count one kernel, with its FLOPs and the bytes ``moved`` that it reads and writes."""
        bound = max(flops / self.device.bf16_flops, moved / self.device.bandwidth)
        self.counts[phase].add(Count(flops, moved, bound, bound / REACHED[phase]))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        packet = func._overloadpacket
        if packet.__name__ in _ALLOCATIONS or _is_view(func):
            return result
        read = _bytes(args) + _bytes(kwargs)
        # An operation in place returns an argument, which it has read already.
        moved = read + (_bytes(args[0]) if func._schema.is_mutable else _bytes(result))
        flops = flop_registry[packet](*args, **kwargs, out_val=result) if packet in flop_registry else 0
        self.add(self.section or self._phase(flops, args), flops, moved)
        return result

    def _phase(self, flops: float, args: Any) -> Phase:
        if not flops:
            return "element-wise"
        sizes = [size for value in tree_flatten(args)[0] if isinstance(value, Tensor) for size in value.shape]
        return "adapter" if self.rank in sizes else "products"


def _is_view(func: Any) -> bool:
    infos = [one.alias_info for one in func._schema.returns]
    return bool(infos) and all(info is not None and not info.is_write for info in infos)


def _bytes(values: Any) -> float:
    return sum(
        float(value.numel() * value.element_size())
        for value in tree_flatten(values)[0]
        if isinstance(value, Tensor)
    )


class _Kernel(torch.autograd.Function):
    """An attention kernel that only counts its work. Its output has the shape of the query, but no values."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, account: Account, kernel: Attention
    ) -> Tensor:
        ctx.save_for_backward(query, key, value)
        ctx.account, ctx.kernel = account, kernel
        account.add("attention", *kernel.forward())
        return torch.empty_like(query)

    @staticmethod
    def backward(ctx: Any, *_gradients: Tensor) -> tuple[Tensor | None, ...]:
        ctx.account.add("attention", *ctx.kernel.backward())
        return (*map(torch.empty_like, ctx.saved_tensors), None, None)


def kernels(account: Account, rows: FlatRows, row: PackedRow, way: Way) -> Kernels:
    """Return attention kernels for ``row``. They compute nothing: they only add their FLOPs and bytes to
    ``account``.

    Only the pairs of tokens that the mask allows are counted. If the row has a shared prompt and
    ``way.skips`` is false, all pairs are counted.
    """
    masked = rows.shared and not way.skips
    pairs = float(row.length**2) if masked else float(visible_pairs(rows))

    def kernel_for(query: Tensor, key: Tensor, axis: int) -> Attention:
        heads, kv_heads = query.shape[axis], key.shape[axis]
        return Attention(row.length, heads, kv_heads, query.shape[-1], pairs, masked)

    def blocks(
        _module: Any, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, None]:
        found: Tensor = _Kernel.apply(query, key, value, account, kernel_for(query, key, 1))  # type: ignore[no-untyped-call]
        return found.transpose(1, 2), None

    def sequences(query: Tensor, key: Tensor, value: Tensor, *_: Any) -> Tensor:
        found: Tensor = _Kernel.apply(query, key, value, account, kernel_for(query, key, 1))  # type: ignore[no-untyped-call]
        return found

    return Kernels(blocks, sequences)


@dataclass
class Subject:
    """A model with an adapter on the meta device. It is prepared like a policy on a GPU."""

    model: Any
    rank: int

    def __post_init__(self) -> None:
        self.inner = self.model.get_base_model()
        self.inner.set_attn_implementation(attention.NAME)
        self.model.train()
        options = {"use_reentrant": False, "preserve_rng_state": False}  # dropout is off
        self.model.gradient_checkpointing_enable(options)
        self.model.enable_input_require_grads()

    def head(self, hidden: Tensor) -> Tensor:
        """Return logits (n, V) in float32, for n hidden states and V tokens of the vocabulary."""
        logits: Tensor = self.inner.get_output_embeddings()(hidden)
        return logits.float()

    def trainable(self) -> list[torch.nn.Parameter]:
        """Return the adapter's weights."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]


def counted(subject: Subject, rows: Sequence[PackedRow], way: Way, device: Device) -> dict[Phase, Count]:
    """Return the counts of each phase of an update with ``rows`` on ``device``, without a KL term.

    Each row is a micro-batch.
    """
    account = Account(device, subject.rank)
    if way.rounded:
        arithmetic.keep_input_dtype(subject.model)
    for row, number in Counter(rows).items():
        one = Account(device, subject.rank)
        _forward_and_backward(subject, build([row], flat=True).to(torch.device("meta")), row, way, one)
        for phase, count in one.counts.items():
            account.counts[phase].add(count, number)
    with account, account.during("optimizer"):
        torch.nn.utils.clip_grad_norm_(subject.trainable(), 1.0)
        torch.optim.AdamW(subject.trainable(), foreach=True).step()
    return {phase: account.counts[phase] for phase in PHASES}


def _forward_and_backward(
    subject: Subject, batch: MicroBatch, row: PackedRow, way: Way, account: Account
) -> None:
    assert batch.flat is not None
    before = replace(attention.KERNELS)
    found = kernels(account, batch.flat, row, way)
    attention.KERNELS.blocks, attention.KERNELS.sequences = found.blocks, found.sequences
    context = arithmetic.rounded("cpu") if way.rounded else nullcontext()
    try:
        with attention.using(batch.flat, Forms("sequences", "blocks")), context, account:
            output = subject.inner.base_model(
                input_ids=batch.tokens_B_T, position_ids=batch.positions_B_T,
                attention_mask=torch.ones_like(batch.positions_B_T), use_cache=False,
            ).last_hidden_state  # fmt: skip
        hidden = output.flatten(0, 1)[batch.source_N].detach().requires_grad_()
        with account, account.during("head"):
            _logprobs(hidden, batch.target_N, subject.head, way).sum().backward()  # type: ignore[no-untyped-call]
        with account:
            output.backward(torch.empty_like(output))
    finally:
        attention.KERNELS.blocks, attention.KERNELS.sequences = before.blocks, before.sequences


def _logprobs(hidden: Tensor, target: Tensor, head: Callable[[Tensor], Tensor], way: Way) -> Tensor:
    def compute(hidden: Tensor, target: Tensor) -> Tensor:
        # In the variant BEFORE, logits are divided by the temperature even if the temperature is 1.
        logits = head if way.ahead else lambda part: head(part) / _PLAIN.temperature
        return token_logprobs(hidden, target, logits, _PLAIN, entropy=way.entropy, penalized=False).filtered_N

    if way.ahead:
        return compute(hidden, target)
    parts = zip(torch.split(hidden, CHUNK_TOKENS), torch.split(target, CHUNK_TOKENS), strict=True)
    return torch.cat(
        [checkpoint(compute, *part, use_reentrant=False, preserve_rng_state=False) for part in parts]
    )


def subject_of(config: Any, rank: int) -> Subject:
    """Return a model with this configuration, and with an adapter of this rank for all linear layers."""
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    from rft_api.parameters import Training
    from rft_trainer.learn.policy import lora_config

    kind: Any = AutoModelForCausalLM
    with torch.device("meta"):
        base = kind.from_config(config, dtype=torch.bfloat16)
        base.requires_grad_(False)
        training = Training.model_validate({"loraRank": rank})
        return Subject(get_peft_model(base, lora_config(training, base.config)), rank)


HEAD = (
    "| model | rows | phase | TFLOP, before | after | GB, before | after | bound s, before | after"
    " | assumed s, before | after |",
    "|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
)


def lines(
    name: str, label: str, tokens: int, before: dict[Phase, Count], after: dict[Phase, Count]
) -> Iterator[str]:
    """Yield the table's lines for a model and layout: each phase, the sum, and the tokens per second.

    - ``name``, ``label``: the names of the model and of the layout.
    - ``tokens``: the number of tokens of an update, from which the tokens per second are computed.
    - ``before``, ``after``: for each phase, the counts of two variants of the update: without (``BEFORE``)
      and with (``AFTER``) the optimizations ``rounded``, ``ahead`` and ``skips`` of ``Way``.
    """
    whole = [_sum(counts) for counts in (before, after)]
    pairs: dict[str, list[Count]] = {phase: [before[phase], after[phase]] for phase in PHASES}
    for phase, both in (pairs | {"sum": whole}).items():
        columns = [
            [f"{one.flops / 1e12:,.2f}" for one in both], [f"{one.bytes / 1e9:,.1f}" for one in both],
            [f"{one.bound:.3f}" for one in both], [f"{one.expected:.3f}" for one in both],
        ]  # fmt: skip
        yield f"| {name} | {label} | {phase} | {' | '.join(cell for pair in columns for cell in pair)} |"
    bounds = " | ".join(f"{tokens / one.bound:,.0f}" for one in whole)
    assumed = " | ".join(f"{tokens / one.expected:,.0f}" for one in whole)
    yield f"| {name} | {label} | **tokens/s** | | | | | {bounds} | {assumed} |"


def _sum(counts: dict[Phase, Count]) -> Count:
    whole = Count()
    for count in counts.values():
        whole.add(count)
    return whole


def rows_of(prompt: int, completion: int, rollouts: int, *, shared: bool) -> list[PackedRow]:
    """Return the rows of a group with one prompt.

    - ``prompt``: the length of the prompt, in tokens.
    - ``completion``: the length of each completion, in tokens.
    - ``rollouts``: the number of completions.
    - ``shared``: if true, one row has the prompt and all completions. If false, each completion has a row of
      its own, with the prompt.
    """
    one = Completion((5,) * completion, (-1.0,) * completion, 1.0)
    if shared:
        return [PackedRow((5,) * prompt, (one,) * rollouts)]
    return [PackedRow((5,) * prompt, (one,))] * rollouts


def table(
    name: str, config: Any, rank: int, layouts: Mapping[str, tuple[Sequence[PackedRow], int]], device: Device
) -> Iterator[str]:
    """Yield the table's lines for a model.

    ``layouts``: for each label the rows of an update, and the number of tokens from which the tokens per
    second are computed.
    """
    for label, (rows, tokens) in layouts.items():
        # Each variant gets a new model, because the preparation of a model for one variant is not undone.
        before, after = (counted(subject_of(config, rank), rows, way, device) for way in (BEFORE, AFTER))
        yield from lines(name, label, tokens, before, after)
