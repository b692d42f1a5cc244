"""Chooses how attention is computed, and gives transformers the kernels for it.

The choice depends on device and architecture:

- On the CPU, rows are padded to the same length, and attention uses a dense mask (see ``masks.py``).
- On a GPU, the rows of a micro-batch are concatenated (see ``flat.py``), and there is no dense mask. Rows
  with one completion for each prompt use a kernel for sequences of different lengths, if there is one. Rows
  with a prompt that several completions share use ``flex_attention``, which skips the blocks of pairs that
  the mask hides.

transformers has a table of attention implementations. For each implementation, the table has a function that
computes attention, and a function that computes its mask. This module adds the implementation ``NAME``.
"""

import importlib
import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.masking_utils import AttentionMaskInterface
from transformers.modeling_utils import AttentionInterface

from rft_run.errors import ConfigurationError
from rft_trainer.learn.flat import FlatRows, block_mask

NAME = "rft_rows"
"""Name of this module's attention implementation in transformers."""
VARIABLE = "RFT_ATTENTION"
"""Environment variable: with the value ``dense``, dense masks are used on a GPU too."""
OLDEST_CAPABILITY = (8, 0)
"""Minimum CUDA compute capability for FlashAttention and ``flex_attention``. GPUs of the generation
Ampere and later have it."""
LARGEST_HEAD = 256
"""Largest head size, in elements, that FlashAttention's kernel for concatenated sequences supports."""

Form = Literal["dense", "sequences", "blocks"]
"""A way to compute the attention of a micro-batch.

- "dense": padded rows with a dense mask
- "sequences": concatenated rows with a kernel for several sequences, such as FlashAttention
- "blocks": concatenated rows with ``flex_attention``, which skips blocks that the mask hides
"""
SequencesKernel = Callable[[Tensor, Tensor, Tensor, Tensor, int, int | None, float | None], Tensor]
"""A function that computes causal attention of several sequences, concatenated to one of T tokens.

D is the size of a head. Returns (T, heads, D). The arguments are, in this order:

- the query (T, heads, D)
- the key (T, kv heads, D)
- the value (T, kv heads, D)
- the index of each sequence's first token, and T at the end: R + 1 numbers for R sequences (int32)
- the number of tokens of the longest sequence
- the attention window in tokens. None: no window.
- the factor for the product of query and key. None: the kernel's default.
"""


@dataclass(frozen=True)
class Forms:
    """How attention is computed for the two kinds of micro-batches.

    - ``plain``: for micro-batches in which each row has one completion.
    - ``shared``: for micro-batches with a row in which several completions share their prompt.
    """

    plain: Form
    shared: Form

    @property
    def flat(self) -> bool:
        """Whether the rows of a micro-batch are concatenated to one sequence."""
        return self.plain != "dense"


DENSE = Forms("dense", "dense")


@dataclass(frozen=True)
class Sequences:
    """Takes the place of an attention mask for kernels such as FlashAttention: the rows of a micro-batch.

    The rows are concatenated to one sequence.

    - ``starts_R1``: R + 1 numbers for R rows: the index of each row's first token, and the number of all
      tokens at the end.
    - ``longest``: number of tokens of the longest row.
    - ``window``: the attention window in tokens. None: no window.
    """

    starts_R1: Tensor
    longest: int
    window: int | None


@dataclass
class _InUse:
    """The rows of the current forward pass, the form of their attention, and their masks.

    ``masks``: a mask for each size of the attention window, in tokens. None as a key: no window.
    """

    rows: FlatRows
    form: Form
    masks: dict[int | None, Sequences | BlockMask] = field(default_factory=dict)

    def mask(self, window: int | None) -> Sequences | BlockMask:
        if window not in self.masks:
            rows = self.rows
            self.masks[window] = (
                block_mask(rows, window)
                if self.form == "blocks"
                else Sequences(rows.starts_R1, rows.longest, window)
            )
        return self.masks[window]


_ROWS: ContextVar[_InUse | None] = ContextVar("flat_rows", default=None)


@contextmanager
def using(rows: FlatRows, forms: Forms) -> Iterator[None]:
    """In the ``with`` block, a model with the attention implementation ``NAME`` computes these rows.

    ``forms``: how attention is computed. It depends on whether completions of ``rows`` share a prompt.
    """
    token = _ROWS.set(_InUse(rows, forms.shared if rows.shared else forms.plain))
    try:
        yield
    finally:
        _ROWS.reset(token)


@contextmanager
def implementation(model: Any, name: str) -> Iterator[None]:
    """In the ``with`` block, let a transformers model use its attention implementation ``name``."""
    before = model.config._attn_implementation
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def choose(
    model: Any, device: torch.device, dtype: torch.dtype, env: Mapping[str, str] = os.environ
) -> Forms:
    """Choose how a model's attention is computed, by the device, the architecture and the packages.

    ``env``: the environment variables. With ``RFT_ATTENTION=dense``, dense masks are used on every device.
    Raises ConfigurationError if ``RFT_ATTENTION`` has another value.
    """
    asked = env.get(VARIABLE, "")
    if asked not in ("", "dense"):
        raise ConfigurationError(f"{VARIABLE}={asked}: the only valid value is dense; remove the variable")
    if asked or device.type != "cuda" or torch.cuda.get_device_capability(device) < OLDEST_CAPABILITY:
        return DENSE
    if find_spec("triton") is None:  # triton compiles flex_attention
        return DENSE
    return suited(model, dtype, sequences_kernel() is not None)


def suited(model: Any, dtype: torch.dtype, has_sequences_kernel: bool) -> Forms:
    """Return the fastest way to compute a model's attention on a GPU that its architecture and dtype allow.

    ``has_sequences_kernel``: whether a kernel such as FlashAttention, for sequences of different lengths, is
    installed.
    """
    config = model.config
    text = config.get_text_config()
    halves = dtype in (torch.bfloat16, torch.float16)
    takes_both = model._supports_flex_attn and model._supports_attention_backend
    # If a model also reads pictures, or its attention has chunks, its mask has other rules than ``flat.py``.
    if not halves or not takes_both or text is not config or getattr(text, "attention_chunk_size", None):
        return DENSE
    # A model with ``eager`` attention uses soft capping or sinks, which the kernel for sequences lacks.
    plain = config._attn_implementation == "sdpa" and _head_size(text) <= LARGEST_HEAD
    return Forms("sequences" if plain and has_sequences_kernel else "blocks", "blocks")


def _head_size(config: Any) -> int:
    own = getattr(config, "head_dim", None)
    return int(own or config.hidden_size // config.num_attention_heads)


def _mask(**arguments: Any) -> Sequences | BlockMask:
    """Return the attention mask of the rows that are being computed. The rows are set by ``using``.

    transformers calls this function once for layers with an attention window, and once for layers without.
    The argument ``local_size`` is the window in tokens.
    """
    current = _ROWS.get()
    if current is None:
        raise RuntimeError(f"attention {NAME!r} needs the rows of a micro-batch: call the model in using()")
    return current.mask(arguments.get("local_size"))


def _attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Sequences | BlockMask,
    scaling: float | None = None,
    **arguments: Any,
) -> tuple[Tensor, None]:
    """Compute the attention of a layer for T tokens. Return the result (1, T, heads, D), and None.

    D is the size of a head. ``query`` is (1, heads, T, D). ``key`` and ``value`` are (1, kv heads, T, D). The
    type of ``attention_mask`` decides which kernel is used. ``scaling``: the factor for the product of query
    and key. None: the kernel's default.
    """
    if isinstance(attention_mask, BlockMask):
        return KERNELS.blocks(module, query, key, value, attention_mask, scaling=scaling, **arguments)[
            0
        ], None
    kernel = KERNELS.sequences or sequences_kernel()
    assert kernel is not None  # else choose() has not chosen this form
    rows = attention_mask
    query_T_H_D, key_T_K_D, value_T_K_D = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    found_T_H_D = kernel(
        query_T_H_D, key_T_K_D, value_T_K_D, rows.starts_R1, rows.longest, rows.window, scaling
    )
    return found_T_H_D[None], None


@dataclass
class Kernels:
    """The functions that compute attention on a GPU.

    - ``blocks``: ``flex_attention``, which skips blocks of tokens that the mask hides.
    - ``sequences``: a kernel for sequences of different lengths, such as FlashAttention. None: the function
      that ``sequences_kernel`` returns.
    """

    blocks: Callable[..., tuple[Tensor, Tensor | None]]
    sequences: SequencesKernel | None = None


KERNELS = Kernels(blocks=flex_attention_forward)
"""The functions that compute attention on a GPU. A test without a GPU replaces them."""

PACKAGES = ("flash_attn_interface", "flash_attn")
"""Packages with FlashAttention's kernel for concatenated sequences, the faster one first: version 3, then
version 2."""


def sequences_kernel() -> SequencesKernel | None:
    """Return a function that computes attention of concatenated sequences. None: none is installed.

    The function is from the first package in ``PACKAGES`` that is installed, else from torch.
    """
    for package in PACKAGES:
        if find_spec(package) is not None:
            return _of_package(package)
    return _torch_sequences if torch_has_sequences() else None


def _of_package(package: str) -> SequencesKernel:
    compute = importlib.import_module(package).flash_attn_varlen_func

    def attend(
        query: Tensor, key: Tensor, value: Tensor, starts: Tensor, longest: int, window: int | None,
        scale: float | None,
    ) -> Tensor:  # fmt: skip
        found = compute(
            query, key, value, starts, starts, longest, longest,
            softmax_scale=scale, causal=True, window_size=_sizes(window, whole=(-1, -1)),
        )  # fmt: skip
        result: Tensor = found[0] if isinstance(found, tuple) else found
        return result

    return attend


def torch_has_sequences() -> bool:
    """Return whether torch has ``varlen_attn`` with windows and grouped heads, as torch 2.13 does."""
    if find_spec("torch.nn.attention.varlen") is None:
        return False
    varlen = importlib.import_module("torch.nn.attention.varlen")
    return {"window_size", "enable_gqa"} <= set(inspect.signature(varlen.varlen_attn).parameters)


def _torch_sequences(
    query: Tensor, key: Tensor, value: Tensor, starts: Tensor, longest: int, window: int | None,
    scale: float | None,
) -> Tensor:  # fmt: skip
    from torch.nn.attention.varlen import varlen_attn

    found: Tensor = varlen_attn(  # type: ignore[assignment]
        query, key, value, starts, starts, longest, longest,
        scale=scale, window_size=_sizes(window, whole=(-1, 0)), enable_gqa=True,
    )  # fmt: skip
    return found


def _sizes(window: int | None, whole: tuple[int, int]) -> tuple[int, int]:
    """Convert an attention window into the argument ``window_size`` of an attention kernel.

    This argument has two numbers: how many tokens before the query, and how many after it, are attended to.
    ``window``: the size in tokens, with the query itself. None: there is no window. Then ``whole`` is
    returned, which is the kernel's value for no limit.
    """
    return whole if window is None else (window - 1, 0)


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, _mask)
