"""Compares two ways of attention on the GPU of this machine: kernels that only a GPU has, and dense masks.

`python -m bench.gpu_check` prints a JSON line for each check: its name, whether it passed, and what it found.
It needs no network, and each check takes less than a minute. The exit code is 1 if a check fails. It is 2 if
torch finds no GPU.

``CHECKS`` has a name and a function for each check. Other programs may call these functions.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from bench.tiny_models import config_of, write_model
from rft_api.parameters import Training
from rft_trainer.learn import attention, logprobs
from rft_trainer.learn.flat import FlatRows, block_mask, mask_mod
from rft_trainer.learn.logprobs import token_logprobs
from rft_trainer.learn.packing import Completion, PackedRow, build
from rft_trainer.learn.policy import Policy, PolicyOptions
from rft_trainer.rollout.filter import Filter

ALLOWED = 0.02
"""Largest error of a result in bfloat16: norm of the difference from float32, over the norm in float32."""
MODELS = ("llama", "mistral", "gemma2", "gpt_oss")
"""Types of tiny models that are checked: plain, with a sliding window, soft capping, attention sinks."""
WINDOWS = (None, 1000)


@dataclass(frozen=True)
class Machine:
    """The device and the sizes for the checks.

    ``length`` is the total number of tokens of the rows. ``kernels`` replaces the kernels of a GPU. If it is
    None, the kernels of the GPU are used.
    """

    device: torch.device
    length: int = 16_384
    head_dim: int = 128
    repeats: int = 5
    kernels: attention.Kernels | None = None

    @property
    def blocks(self) -> Callable[..., tuple[Tensor, Tensor | None]]:
        """The attention kernel that is checked with rows in which completions share a prompt."""
        return (self.kernels or attention.KERNELS).blocks

    @property
    def sequences(self) -> attention.SequencesKernel | None:
        """The attention kernel that is checked with rows without shared prompts. None: none is installed."""
        return self.kernels.sequences if self.kernels else attention.sequences_kernel()


Found = dict[str, Any]
Check = Callable[[Machine], Found]
T = TypeVar("T")


def _row(prompt: int, *lengths: int) -> PackedRow:
    def tokens(count: int, first: int) -> tuple[int, ...]:
        return tuple(3 + (first + 7 * index * index) % 60 for index in range(count))

    completions = [Completion(tokens(count, count), (-1.0,) * count, 1.0) for count in lengths]
    return PackedRow(tokens(prompt, 1), tuple(completions))


def _rows(machine: Machine, *, shared: bool) -> list[PackedRow]:
    """Return rows of different lengths, with about ``length`` tokens in total."""
    part = machine.length // 16
    if shared:
        return [_row(4 * part, 3 * part, 1, 2 * part, part), _row(part, 4 * part + 3), _row(7, part // 2, 5)]
    return [_row(4 * part, 4 * part), _row(part, 5 * part + 3), _row(1, part)]


def _flat(machine: Machine, *, shared: bool) -> FlatRows:
    found = build(_rows(machine, shared=shared), flat=True).flat
    assert found is not None
    return found.to(machine.device)


def _parts(machine: Machine, length: int) -> list[Tensor]:
    """Return random query (1, 8, T, D), key and value (1, 2, T, D) in bfloat16, with ``requires_grad``.

    T is ``length``, and D is the size of a head.
    """
    draw = torch.Generator(machine.device).manual_seed(1)
    sizes = ((1, heads, length, machine.head_dim) for heads in (8, 2, 2))
    return [
        torch.randn(*size, generator=draw, device=machine.device, dtype=torch.bfloat16).requires_grad_()
        for size in sizes
    ]


def _module() -> torch.nn.Module:
    """Return a module with the attributes that transformers' attention functions read from a layer."""
    return torch.nn.Module().train()


def _results(output: Tensor, parts: Sequence[Tensor]) -> list[Tensor]:
    """Return the output, and the gradients of a weighted sum of the output."""
    draw = torch.Generator(output.device).manual_seed(2)
    weights = torch.randn(output.shape, generator=draw, device=output.device)
    return [output.detach(), *torch.autograd.grad((output.float() * weights).sum(), list(parts))]


def _dense(rows: FlatRows, window: int | None, parts: Sequence[Tensor]) -> list[Tensor]:
    """Return output and gradients with a dense mask in float32. One query head at a time saves memory."""
    index = torch.arange(rows.length, device=rows.text_T.device)
    allowed = mask_mod(rows, window)(index, index, index[:, None], index[None, :])
    query, key, value = (part.detach().float().requires_grad_() for part in parts)
    shared = query.shape[1] // key.shape[1]
    heads = [
        scaled_dot_product_attention(
            query[:, [head]], key[:, [head // shared]], value[:, [head // shared]], attn_mask=allowed
        )
        for head in range(query.shape[1])
    ]
    return _results(torch.cat(heads, dim=1), (query, key, value))


def _error(found: Tensor, wanted: Tensor) -> float:
    return float((found.float() - wanted.float()).norm() / wanted.float().norm())


def _compared(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> list[float]:
    return [_error(one, other) for one, other in zip(found, wanted, strict=True)]


def check_sequences(machine: Machine) -> Found:
    """Check that the kernel for plain rows gives the same output and gradients as a dense mask."""
    kernel = machine.sequences
    if kernel is None:
        return {"ok": True, "skipped": "no kernel for sequences is installed"}
    rows = _flat(machine, shared=False)
    errors: dict[str, list[float]] = {}
    for window in WINDOWS:
        parts = _parts(machine, rows.length)
        query, key, value = (part[0].transpose(0, 1) for part in parts)
        output = kernel(query, key, value, rows.starts_R1, rows.longest, window, None)
        found = _results(output.transpose(0, 1)[None], parts)
        errors[str(window)] = _compared(found, _dense(rows, window, parts))
    return {"ok": _within(errors), "errors": errors, "kernel": getattr(kernel, "__qualname__", "")}


def check_blocks(machine: Machine) -> Found:
    """Check that ``flex_attention``, for shared prompts, gives the output and gradients of a dense mask."""
    rows = _flat(machine, shared=True)
    errors: dict[str, list[float]] = {}
    for window in WINDOWS:
        parts = _parts(machine, rows.length)
        mask = block_mask(rows, window)
        output = machine.blocks(_module(), *parts, mask, scaling=machine.head_dim**-0.5)[0].transpose(1, 2)
        errors[str(window)] = _compared(_results(output, parts), _dense(rows, window, parts))
    return {"ok": _within(errors), "errors": errors}


def _within(errors: dict[str, list[float]]) -> bool:
    return all(error <= ALLOWED for found in errors.values() for error in found)


def check_models(machine: Machine) -> Found:
    """Check the forms of attention that the trainer chooses, with tiny models.

    Log-probs and gradients must be equal to those with dense masks.
    """
    found: Found = {"ok": True}
    for kind in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            write_model(config_of(kind), Path(folder))
            dense, chosen = (_policy(Path(folder), machine, dense=dense) for dense in (True, False))
        rows = [_row(30, 20, 9), _row(4, 40)], [_row(6, 40), _row(40, 3)]
        errors = {str(number): _pass(chosen, part, dense) for number, part in enumerate(rows)}
        # Large weights increase rounding errors, so the limit is higher than for a single kernel.
        ok = all(error <= 5 * ALLOWED for one in errors.values() for error in one)
        # If a policy on a GPU uses dense masks, it has found that the results of its kernel are wrong.
        used = chosen.forms != attention.DENSE or machine.device.type != "cuda"
        found[kind] = {"forms": [chosen.forms.plain, chosen.forms.shared], "errors": errors}
        found["ok"] = found["ok"] and ok and used
    return found


def _policy(folder: Path, machine: Machine, *, dense: bool) -> Policy:
    """Return the policy of a model, with an adapter that changes the model's output."""
    before = os.environ.pop(attention.VARIABLE, None)
    if dense:
        os.environ[attention.VARIABLE] = "dense"
    try:
        options = PolicyOptions(folder, Training(lora_rank=4), machine.device.type, "bfloat16", 0)
        policy = Policy(options)
    finally:
        os.environ.pop(attention.VARIABLE, None)
        if before is not None:
            os.environ[attention.VARIABLE] = before
    draw = torch.Generator(machine.device).manual_seed(4)
    with torch.no_grad():
        for factor in policy.output_factors():
            factor.normal_(std=0.02, generator=draw)
    return policy


def _pass(policy: Policy, rows: list[PackedRow], other: Policy) -> list[float]:
    """Return two relative differences of two policies: of the log-probs, and of the LoRA B gradients."""
    results = []
    for one in (policy, other):
        batch = one.batch(rows)
        found = token_logprobs(one.hidden(batch), batch.target_N, one.head, Filter(1.0, 0, 1.0))
        gradients = torch.autograd.grad(found.filtered_N.mean(), one.output_factors())
        results.append([found.filtered_N.detach(), torch.cat([part.flatten() for part in gradients])])
    return _compared(*results)


def check_head(machine: Machine) -> Found:
    """Check that the output layer's log-probs and gradients do not depend on the size of chunks."""
    draw = torch.Generator(machine.device).manual_seed(5)
    count, width, vocabulary = machine.length // 4, 64, 5000
    weight = torch.randn(vocabulary, width, generator=draw, device=machine.device, dtype=torch.bfloat16)
    hidden = torch.randn(count, width, generator=draw, device=machine.device, dtype=torch.bfloat16)
    target = torch.randint(0, vocabulary, (count,), generator=draw, device=machine.device)
    results = []
    usual = logprobs.CHUNK_TOKENS
    try:
        for size in (max(1, count // 4), count):
            logprobs.CHUNK_TOKENS = size
            own = hidden.clone().requires_grad_()
            found = token_logprobs(own, target, lambda part: (part @ weight.T).float(), Filter(1.0, 20, 0.9))
            loss = found.filtered_N.mean() + found.unfiltered_N.square().mean()
            results.append([found.filtered_N.detach(), *torch.autograd.grad(loss, own)])
    finally:
        logprobs.CHUNK_TOKENS = usual
    errors = {"logprobs and gradient": _compared(*results)}
    return {"ok": _within(errors), "errors": errors}


def check_times(machine: Machine) -> Found:
    """Measure the milliseconds of a forward and backward pass at full length. This check always passes."""
    whole = _row(1, machine.length)
    shared = _row(machine.length // 2, *[machine.length // 8] * 4)
    found: Found = {"ok": True}
    for name, run in _timed(machine, whole, shared):
        try:
            run()
            found[name] = round(_milliseconds(machine, run), 3)
        except (RuntimeError, ImportError) as error:
            found[name] = f"{type(error).__name__}: {error}"[:200]
    return found


def _timed(machine: Machine, whole: PackedRow, shared: PackedRow) -> Iterator[tuple[str, Callable[[], None]]]:
    kernel = machine.sequences

    def by_sequences(rows: FlatRows, parts: Sequence[Tensor]) -> Tensor:
        assert kernel is not None
        query, key, value = (part[0].transpose(0, 1) for part in parts)
        return kernel(query, key, value, rows.starts_R1, rows.longest, None, None)

    def by_blocks(rows: FlatRows, parts: Sequence[Tensor]) -> Tensor:
        mask = block_mask(rows, None)
        return machine.blocks(_module(), *parts, mask, scaling=machine.head_dim**-0.5)[0]

    def by_torch(backend: SDPBackend | None) -> Callable[[FlatRows, Sequence[Tensor]], Tensor]:
        def compute(_: FlatRows, parts: Sequence[Tensor]) -> Tensor:
            with nullcontext() if backend is None else sdpa_kernel(backend):
                query, key, value = parts
                return scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)

        return compute

    ways: list[tuple[str, PackedRow, Callable[[FlatRows, Sequence[Tensor]], Tensor]]] = [
        ("blocks, one sequence", whole, by_blocks),
        ("blocks, shared prompt", shared, by_blocks),
        ("torch's choice, one sequence", whole, by_torch(None)),
    ]
    if kernel is not None:
        ways.append(("sequences, one sequence", whole, by_sequences))
    if machine.device.type == "cuda":
        ways.append(("torch's flash attention, one sequence", whole, by_torch(SDPBackend.FLASH_ATTENTION)))
        ways.append(("cuDNN, one sequence", whole, by_torch(SDPBackend.CUDNN_ATTENTION)))
    for name, row, compute in ways:
        rows = build([row], flat=True).flat
        assert rows is not None
        rows, parts = rows.to(machine.device), _parts(machine, rows.length)

        def run(rows: FlatRows = rows, parts: Any = parts, compute: Any = compute) -> None:
            torch.autograd.grad(compute(rows, parts).sum(), parts)

        yield name, run


def _milliseconds(machine: Machine, run: Callable[[], None]) -> float:
    """Return the median time of a call, in milliseconds."""
    taken = []
    for _ in range(machine.repeats):
        _wait(machine)
        started = time.perf_counter()
        run()
        _wait(machine)
        taken.append(1000 * (time.perf_counter() - started))
    return statistics.median(taken)


def _wait(machine: Machine) -> None:
    if machine.device.type == "cuda":
        torch.cuda.synchronize(machine.device)


CHECKS: tuple[tuple[str, Check], ...] = (
    ("attention of plain rows", check_sequences),
    ("attention of shared rows", check_blocks),
    ("models", check_models),
    ("head", check_head),
    ("times", check_times),
)


def line(name: str, check: Callable[[T], Found], machine: T) -> Found:
    """Run a check on a machine and return its result. A check that raises an error has failed."""
    started = time.perf_counter()
    try:
        found = check(machine)
    except Exception as error:  # on an unknown GPU any error may occur, and the other checks still run
        found = {"ok": False, "error": f"{type(error).__name__}: {error}"[:2000]}
    return {"check": name, **found, "seconds": round(time.perf_counter() - started, 1)}


def main() -> int:
    """Run the selected checks, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [name for name, _ in CHECKS]
    parser.add_argument("--only", choices=names, action="append", help="run only this check; may be repeated")
    parser.add_argument("--length", type=int, default=16_384, help="tokens of the rows")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("torch finds no GPU here: run this on a machine with one", file=sys.stderr)
        return 2
    machine = Machine(torch.device("cuda"), arguments.length)
    versions = {"torch": torch.__version__, "gpu": torch.cuda.get_device_name(0)}
    print(json.dumps({"check": "versions", "ok": True, **versions}), flush=True)
    failed = 0
    for name, check in CHECKS:
        if arguments.only and name not in arguments.only:
            continue
        found = line(name, check, machine)
        print(json.dumps(found), flush=True)
        failed += not found["ok"]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
