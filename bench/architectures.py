"""Trains a small random model of every architecture. Compares its log-probs with those of transformers.

    python -m bench.architectures [MODEL_TYPE ...] [--output docs/architectures.md]

The reference is the forward pass of transformers, for one text at a time. It uses eager attention, because no
other attention supports all parts of all architectures. The log-probs are compared twice. The first time
there is no adapter. The second time the adapter, after one update, is loaded from its files.

Then a vLLM server loads two adapters, one after the other. Its log-probs must be those of the loaded adapter.
Every run makes this check before its first step.
"""

import argparse
import inspect
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from bench.tiny_models import CONFIGS, SIZES, config_of, window_of, write_model
from rft_api.parameters import Training
from rft_planner.architectures import TRAINABLE
from rft_run.errors import ModelError, SamplerError, SamplerMismatch
from rft_run.folder import adapter_weights_of
from rft_trainer.learn.logprobs import unfiltered_logprobs
from rft_trainer.learn.packing import Completion, PackedRow, build
from rft_trainer.learn.policy import Policy, PolicyOptions
from rft_trainer.learn.ranks import Followers
from rft_trainer.probe import SamplerProbe
from rft_trainer.rollout.engine import SamplingParameters
from rft_trainer.rollout.vllm_engine import VllmEngine
from rft_trainer.rollout.vllm_server import ServerOptions

TOLERANCE = 1e-3
"""Log-probs in float32 count as equal if they differ by at most this much, in nats."""
ERROR_MARKS = ("ModuleNotFoundError: ", "Value error, ", "Error: ")
"""Texts in vLLM's log that are followed by the reason of an error.

If the log has several of these texts, the reason after the first text in this list is the most precise one.
"""
MOVED = 1e-2
"""An update must change at least one log-prob by more than this, in nats."""


@dataclass(frozen=True)
class Texts:
    """A prompt and its completions, as token ids."""

    prompt: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]

    @property
    def shared(self) -> list[PackedRow]:
        """A packed row with the prompt and all completions."""
        return [PackedRow(self.prompt, tuple(map(_completion, self.completions)))]

    @property
    def alone(self) -> list[PackedRow]:
        """For each completion, a packed row with the prompt and this completion."""
        return [PackedRow(self.prompt, (_completion(ids),)) for ids in self.completions]


def _completion(ids: tuple[int, ...]) -> Completion:
    return Completion(ids, (0.0,) * len(ids), 0.0)


def _texts(prompt: int, *completions: int) -> Texts:
    draw = torch.Generator().manual_seed(prompt)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, 90, (length,), generator=draw).tolist())

    return Texts(ids(prompt), tuple(map(ids, completions)))


BELOW = _texts(6, 5, 3, 4)
BEYOND = _texts(40, 20, 5, 12)
"""In ``BELOW``, prompt and completion together are shorter than the sliding window, in ``BEYOND`` longer."""


@dataclass(frozen=True)
class Result:
    """Largest differences from transformers' log-probs, in nats. A field's name joins two of these parts:

    - ``below``: prompt and completion together are shorter than the model's sliding window.
    - ``beyond``: prompt and completion together are longer than the sliding window.
    - ``alone``: each completion is in a row of its own.
    - ``shared``: all completions are in one row. The value is None if the trainer does not share prompts.
    """

    model_type: str
    below_alone: float
    below_shared: float | None
    beyond_alone: float
    beyond_shared: float | None
    moved: float
    """Largest change of a log-prob that the update caused, in nats."""

    @property
    def faults(self) -> list[str]:
        """A text for each value that is outside its limits."""
        differences = {
            "below the window, alone": self.below_alone,
            "below the window, shared": self.below_shared or 0.0,
            "beyond the window, alone": self.beyond_alone,
            "beyond the window, shared": self.beyond_shared or 0.0,
        }
        found = [f"{where}: {value:.2g}" for where, value in differences.items() if not value <= TOLERANCE]
        too_little = f"the update changed log-probs by at most {self.moved:.2g}"
        return found if self.moved > MOVED else [*found, too_little]


def own_logprobs(model: Any, texts: Texts) -> Tensor:
    """Return the completions' log-probs in nats by transformers' ``model``, one completion at a time."""
    start = len(texts.prompt) - 1
    found = []
    with torch.no_grad():
        for ids in texts.completions:
            logits = model(torch.tensor([[*texts.prompt, *ids[:-1]]]), use_cache=False).logits[0, start:]
            found.append(logits.log_softmax(1).gather(1, torch.tensor(ids)[:, None])[:, 0])
    return torch.cat(found)


def policy_logprobs(policy: Policy, rows: Sequence[PackedRow]) -> Tensor:
    """Return the log-probs of the completions in ``rows``, in nats, by the trainer's policy."""
    batch = build(rows)
    with torch.no_grad():
        return unfiltered_logprobs(policy.hidden(batch), batch.target_N, policy.head, 1.0)


def update(policy: Policy, rows: Sequence[PackedRow]) -> None:
    """Make one optimizer step, after which the completions in ``rows`` are more probable."""
    batch = build(rows)
    logits = policy.head(policy.hidden(batch))
    optimizer = torch.optim.AdamW(policy.trainable(), lr=0.02)
    torch.nn.functional.cross_entropy(logits, batch.target_N).backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def measure(model_type: str, folder: Path) -> Result:
    """Build a small model of a type in ``folder``, and compare its log-probs before and after one update.

    Raises:
        ModelError: the trainer refuses the model.
    """
    write_model(config_of(model_type), folder)
    policy = Policy(PolicyOptions(folder, Training(lora_rank=4, lora_alpha=8), "cpu", "float32", 0))
    kind: Any = AutoModelForCausalLM
    own = kind.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    before = own_logprobs(own, BEYOND)
    differences = [_differences(policy, own)]
    update(policy, BEYOND.shared if policy.shares_prompts else BEYOND.alone)
    adapter = folder / "adapter"
    policy.save_adapter(adapter)
    tuned = PeftModel.from_pretrained(own, str(adapter)).eval()
    after = own_logprobs(tuned, BEYOND)
    differences.append(_differences(policy, tuned))
    worst = [_worst(values) for values in zip(*differences, strict=True)]
    assert worst[0] is not None
    assert worst[2] is not None
    return Result(model_type, worst[0], worst[1], worst[2], worst[3], float((after - before).abs().max()))


def _differences(policy: Policy, own: Any) -> list[float | None]:
    found: list[float | None] = []
    for texts in (BELOW, BEYOND):
        wanted = own_logprobs(own, texts)
        found.append(float((policy_logprobs(policy, texts.alone) - wanted).abs().max()))
        shared = policy_logprobs(policy, texts.shared) if policy.shares_prompts else None
        found.append(float((shared - wanted).abs().max()) if shared is not None else None)
    return found


def _worst(values: tuple[float | None, ...]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def vllm_follows(model_type: str, folder: Path) -> str:
    """Return "yes" if a vLLM server on the CPU uses two adapters of a small model correctly.

    Otherwise return why not.

    Raises:
        SamplerMismatch: the server does not sample from the policy.
    """
    if find_spec("vllm") is None:
        return "not tried, vLLM is not installed"
    model, adapters = folder / "model", folder / "adapters"
    adapters.mkdir()
    # vLLM refuses Qwen models with windows in only some of their layers. No such model is published.
    whole = {"use_sliding_window": False} if "use_sliding_window" in CONFIGS[model_type][1] else {}
    write_model(config_of(model_type, **whole), model)
    options = ServerOptions(
        model=model, context_length=128, lora_rank=8, run_dir=folder, dtype="float32",
        max_sequences=8, kv_cache_bytes=2**27,
    )  # fmt: skip
    with closing(VllmEngine(options)) as engine:
        policy = Policy(PolicyOptions(model, Training(lora_rank=8), "cpu", "float32", 0))
        followers = Followers(1, "cpu", None)
        probe = SamplerProbe(policy, engine, followers, adapters, "float32", lambda: None)
        try:
            probe.before_training(BELOW.prompt, SamplingParameters(0.7, 1.0, 40, 16), lambda: False)
        except SamplerError as error:
            policy.save_adapter(adapters / "saved")
            return f"{names_in_vllm(model_type, adapters / 'saved')}{_reason(str(error))}"
    return "yes"


def names_in_vllm(model_type: str, adapter: Path) -> str:
    """Return in words whether vLLM's class of the model has all adapted layers; "" if vLLM has no class."""
    from vllm.model_executor.models.registry import ModelRegistry

    kind: Any = ModelRegistry._try_load_model_cls(TRAINABLE[model_type])
    if kind is None:
        return ""
    weights = load_file(adapter_weights_of(adapter))
    adapted = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in weights}
    joined = {name for parts in kind.packed_modules_mapping.values() for name in parts}
    source = inspect.getsource(sys.modules[kind.__module__])
    found = kind.supports_lora and all(name in joined or f".{name} = " in source for name in adapted)
    return "names compared; " if found else "names differ; "


def _reason(log: str) -> str:
    """Return one line with the error in the last lines of vLLM's log, as the reason why vLLM fails."""
    lines = log.splitlines()
    errors = [line.split(mark, 1)[1] for mark in ERROR_MARKS for line in lines if mark in line]
    reason = (errors or lines)[0].split(" [type=")[0]
    return f"does not run here: {reason.replace('|', '/')[:120].strip()}"


def table(results: Sequence[tuple[Result, str]]) -> str:
    """Return the table in Markdown."""
    names = (
        "model type", "window", "below, alone", "below, shared",
        "beyond, alone", "beyond, shared", "update", "vLLM",
    )  # fmt: skip
    head = f"| {' | '.join(names)} |"
    return "\n".join([head, "|---" * len(names) + "|", *(_line(*one) for one in results)])


def _line(result: Result, vllm: str) -> str:
    values = (result.below_alone, result.below_shared, result.beyond_alone, result.beyond_shared)
    shown = " | ".join("not shared" if value is None else f"{value:.1e}" for value in values)
    window = window_of(result.model_type) or "none"
    return f"| `{result.model_type}` | {window} | {shown} | {result.moved:.2f} | {vllm} |"


def page(results: Sequence[tuple[Result, str]]) -> str:
    """Return the documentation page with the results, as Markdown."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    layers, prompt, longest = (
        SIZES["num_hidden_layers"],
        len(BEYOND.prompt),
        max(map(len, BEYOND.completions)),
    )
    return f"""# Architectures

Written by `make bench-architectures` on {datetime.now(UTC):%Y-%m-%d}, of commit {commit}.

A model can be trained if the `model_type` in its `config.json` is in this table. `rft plan` and `rft run`
refuse every other model. If the model's name shows the type, the operator refuses the job before it gets
a GPU.

Each line is a random model of {layers} layers in float32, on the CPU. The numbers are the largest differences
between a log-prob by the trainer and by the model's own code, in nats, before and after one update. After the
update, peft loads the saved adapter into the model's own code. `window` is the length of the model's sliding
window, in tokens. It is `none` if no layer of the type has a sliding window, or if none of its published
models uses one. In the columns `below` the texts are shorter than the window. In the columns `beyond` they
are longer: a prompt of {prompt} tokens and up to {longest} more. With `alone`, each completion is in a row of
its own. With `shared`, all completions are in one row with their prompt. All differences must be at most
{TOLERANCE:g}.
`update` is the largest change of a log-prob by the update, and must be more than {MOVED:g}.

`vLLM` is `yes` if a vLLM server on the CPU has loaded two adapters of the model, one after the other, and its
log-probs were those of the loaded adapter. A mixture of experts does not run on a CPU. `names compared` means
that vLLM's class has all adapted layers, under the names to which vLLM maps them. Every run makes the check
with two adapters before its first step. If the sampler does not use the adapter, the run ends with the reason
`SamplerMismatch`.

{table(results)}
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line. Return 1 if a value is outside its limits, else 0."""
    parser = argparse.ArgumentParser(prog="python -m bench.architectures")
    parser.add_argument("types", nargs="*", default=list(CONFIGS), metavar="MODEL_TYPE")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args(argv)
    results, faults = [], []
    for name in arguments.types:
        with tempfile.TemporaryDirectory() as folder:
            try:
                result = measure(name, Path(folder) / "compared")
                vllm = vllm_follows(name, Path(folder))
            except (ModelError, SamplerMismatch) as error:
                faults.append(f"{name}: {error}")
                continue
        results.append((result, vllm))
        faults += [f"{name}: {fault}" for fault in result.faults]
        print(_line(result, vllm), flush=True)
    if arguments.output is not None:
        arguments.output.write_text(page(results), encoding="utf-8")
    print("\n".join(faults) or "all values are within their limits")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
