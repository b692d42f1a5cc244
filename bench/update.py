"""Measures only the optimizer update: its speed, and its time and memory compared with the plan.

`python -m bench.update` trains models with random weights on groups of random tokens. The models have the
shape of published models. The values of weights and tokens do not affect the speed. An update is everything
between the rollouts and the next adapter: packing, forward and backward passes, objective, AdamW.

On a GPU the benchmark measures two shapes with a context of 16,384 tokens. On the CPU it runs a tiny shape,
only to check that it works. Speed is given in tokens per second. It is also given as the fraction of the
GPU's FLOPs per second that the update uses.

There are two layouts:

- ``long``: the prompt is short, and each completion fills the rest of the context. Each completion has its
  own row.
- ``shared``: one row has a prompt of half the context, and all completions.

There are two kinds of settings:

- ``plain``: neither top-k nor a reference policy.
- ``usual``: the default settings of a job, with top-k and a reference policy.

With ``--account`` nothing is measured, and no GPU is needed: the FLOPs and bytes of an update are counted by
phase, see ``bench/account.py``.
"""

import argparse
import gc
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from bench import account
from bench.memory import MIB, save_tokenizer
from rft_api.job import RFTJobSpec
from rft_graders.types import Score
from rft_planner.accelerators import ACCELERATORS, Device
from rft_planner.catalogue import shape_of
from rft_planner.plan import plan
from rft_planner.shapes import Shape
from rft_planner.sizes import GIB
from rft_planner.speed import Lengths, Speed, Update, attention_flops, linear_flops, update_seconds
from rft_run.config import JobIdentity, RunConfig
from rft_run.errors import MemoryExhausted
from rft_trainer.data import Prompt, Row
from rft_trainer.engines import model_dtype
from rft_trainer.learn.optimizer import make_optimizer
from rft_trainer.learn.packing import PackedRow, completions_by_prompt, rows_of_group
from rft_trainer.learn.policy import Policy, PolicyOptions
from rft_trainer.learn.ranks import Followers
from rft_trainer.learn.update import update
from rft_trainer.rollout.engine import Generated
from rft_trainer.rollout.groups import Group, Rollout
from rft_trainer.runtime import machine
from rft_trainer.setup import sampling_parameters, update_settings

ROLLOUTS = 4
MAX_COMPLETION = 16_384
"""The upper limit of ``sampling.maxTokens``."""
TINY = "tiny"
LAYOUTS = ("long", "shared")
SETTINGS = ("plain", "usual")


@dataclass(frozen=True)
class Case:
    """One line of the result table. Lengths are in tokens."""

    model: str
    context: int
    rank: int
    layout: str
    settings: str

    @property
    def prompt(self) -> int:
        """Number of tokens in the group's prompt."""
        if self.layout == "shared":
            return self.context // 2
        return max(self.context // 32, self.context - MAX_COMPLETION)

    @property
    def completion(self) -> int:
        """Number of tokens in a completion. In layout ``shared`` all completions fill half of the context."""
        return (self.context - self.prompt) // (1 if self.layout == "long" else ROLLOUTS)

    @property
    def lengths(self) -> Lengths:
        """The lengths of the case, as the planner's type ``Lengths``."""
        return Lengths(self.prompt, self.completion, self.completion)


@dataclass(frozen=True)
class Outcome:
    """Measurements of updates on one group, and the planner's predictions.

    - ``seconds``: the seconds of each measured update.
    - ``planned_seconds``: the planned seconds of an update.
    - ``held``: the measured peak of the GPU memory, in bytes; None on a CPU.
    - ``planned``: the planned GPU memory for training, in bytes; None on a CPU.
    """

    case: Case
    computed: int
    """Number of tokens for which the update's forward pass computes values. A shared prompt counts once."""
    seconds: tuple[float, ...]
    flops: float
    """FLOPs that an update needs, as ``needed_flops`` calculates them."""
    rate: float | None
    """FLOPs per second in bf16, by the GPU's data sheet. None for a CPU."""
    planned_seconds: float | None
    held: float | None
    planned: float | None

    @property
    def tokens(self) -> int:
        """Number of trained tokens: for each rollout the tokens of prompt and completion."""
        return ROLLOUTS * (self.case.prompt + self.case.completion)

    @property
    def median(self) -> float:
        """Median seconds of an update."""
        return statistics.median(self.seconds)

    @property
    def utilisation(self) -> float | None:
        """Model FLOPs utilisation: needed FLOPs / (measured seconds x FLOPs per second of the data sheet)."""
        return self.flops / (self.median * self.rate) if self.rate is not None else None


def needed_flops(shape: Shape, rows: Sequence[PackedRow], work: Update) -> float:
    """Return the FLOPs of an update: its forward and backward pass, and the reference's forward pass.

    Two things are not counted: values that are computed a second time, and pairs of tokens that the mask
    hides. Chowdhery et al. 2022 (PaLM, appendix B) count in the same way.

    FLOPs for one token:

    - a weight of the base: 2 in the forward pass, 2 in the backward pass, because the base is frozen;
    - a weight of the adapter: 2 in the forward pass, 4 in the backward pass;
    - attention: twice as many in the backward pass as in the forward pass.
    """
    forwards = 1 + int(work.reference)
    found = 0.0
    for row in rows:
        prompt = len(row.prompt_ids)
        seen = prompt * prompt / 2
        for one in row.completions:
            completion = len(one.ids) - 1
            seen += completion * (prompt + completion / 2)
        found += (forwards + 1) * linear_flops(shape, row.length) + 6 * work.adapter * row.length
        found += (forwards + 2) * attention_flops(shape, 1, seen)
    return found


def shape_named(name: str) -> Shape:
    """Return the shape of a Qwen3 model in the catalogue, or the tiny shape."""
    if name == TINY:
        small = shape_named("Qwen/Qwen3-0.6B")
        # The norms of queries and keys keep their size: two vectors of a head's size in each layer.
        return replace(
            small, layers=2, hidden=64, intermediate=128, heads=2, kv_heads=1, vocabulary=512, context=4096
        )
    shape = shape_of(name)
    assert shape is not None
    return shape


def config_of(shape: Shape) -> Any:
    """Return the configuration of a Qwen3 model with this shape."""
    from transformers import Qwen3Config

    return Qwen3Config(
        vocab_size=shape.vocabulary, hidden_size=shape.hidden, intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim, max_position_embeddings=shape.context, tie_word_embeddings=shape.tied,
    )  # fmt: skip


def random_model(name: str, folder: Path, device: str) -> Path:
    """Return the folder with a model of the shape ``name`` and random bfloat16 weights.

    This folder is in ``folder``. If it does not exist, the model is created on ``device``.
    """
    target = folder / name.replace("/", "--")
    if not target.exists():
        from transformers import AutoModelForCausalLM

        torch.manual_seed(0)
        kind: Any = AutoModelForCausalLM
        with torch.device(device):
            model = kind.from_config(config_of(shape_named(name)), dtype=torch.bfloat16)
        model.save_pretrained(target)
        save_tokenizer(target, vocabulary=512)
    return target


def run_config(case: Case, model: Path, accelerator: str | None) -> RunConfig:
    """Return the configuration of a run on the CPU, or on two GPUs: one for training and one for sampling."""
    kind = {"accelerator": {"name": accelerator}} if accelerator else {}
    spec = RFTJobSpec.model_validate(
        {
            "model": {"name": str(model)},
            "dataset": {"uri": "./rows.jsonl"},
            "graders": [{"name": "exact", "exactMatch": {}}],
            "training": {"maxContextLength": case.context, "loraRank": case.rank, "seed": 1}
            | ({"klBeta": 0} if case.settings == "plain" else {}),
            "sampling": {"maxTokens": case.completion, "numRollouts": ROLLOUTS, "engine": "transformers"}
            | ({"temperature": 1, "topK": 0} if case.settings == "plain" else {}),
            "resources": {"gpus": 2 if accelerator else 0} | kind,
            "storage": {"ephemeral": {}},
        }
    )
    made = plan(spec, "uid", shape=shape_named(case.model))
    assert made.effective is not None
    return RunConfig(
        job=JobIdentity(name="update", namespace="bench", uid="uid"),
        spec=spec, effective=made.effective, plan=made, device=made.device, gpus=made.gpus,
        run_dir=str(model), dataset_path="rows.jsonl",
    )  # fmt: skip


def group_of(case: Case, vocabulary: int) -> Group:
    """Return a prompt and its rollouts of random tokens. Half of the rollouts have a higher reward."""
    draw = random.Random(1)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(draw.choices(range(vocabulary), k=count))

    prompt = Prompt(Row(1, [], {}, ""), tokens(case.prompt))
    rollouts = tuple(
        Rollout(
            Generated(tokens(case.completion), (-1.0,) * case.completion, "", "stop"),
            Score(float(number % 2)),
        )
        for number in range(ROLLOUTS)
    )
    advantages = tuple(2.0 * (number % 2) - 1.0 for number in range(ROLLOUTS))
    return Group(prompt, rollouts, rollouts, advantages)


def measure(case: Case, model: Path, accelerator: str | None, updates: int) -> Outcome:
    """Measure ``updates`` updates on one group. An additional first update is not measured.

    ``accelerator`` is the GPU's name in the catalogue, or None for the CPU.

    Raises:
        MemoryExhausted: there is not enough memory for a forward pass.
    """
    config = run_config(case, model, accelerator)
    shape = shape_named(case.model)
    training = config.spec.training
    policy = Policy(PolicyOptions(model, training, config.device, model_dtype(config), seed=1))
    optimizer = make_optimizer(policy.trainable(), training)
    settings = update_settings(config, sampling_parameters(config.spec.sampling, policy.tokenizer))
    group = group_of(case, shape.vocabulary)
    rows = [
        row
        for prompt, completions in completions_by_prompt(group, settings.mask_truncated).items()
        for row in rows_of_group(
            prompt,
            completions,
            policy.hidden_size_for_packing,
            settings.longest_shared_row,
            flat=policy.forms.flat,
        )
    ]
    alone = Followers(1, config.device, None)
    seconds: list[float] = []
    computed = 0
    for _ in range(1 + updates):
        started = time.monotonic()
        metrics = update(policy, optimizer, [group], settings, lambda: False, alone)
        if accelerator:
            torch.cuda.synchronize()
        seconds.append(time.monotonic() - started)
        assert metrics.moved
        computed = metrics.forward_tokens
    work = Update(ROLLOUTS, shape.lora_parameters(case.rank), settings.loss.kl_beta > 0)
    device = ACCELERATORS[accelerator] if accelerator else None
    return Outcome(
        case=case,
        computed=computed,
        seconds=tuple(seconds[1:]),
        flops=needed_flops(shape, rows, work),
        rate=device.bf16_flops if device else None,
        planned_seconds=_planned_seconds(case, shape, work, device, settings.micro_batch_tokens),
        held=_held() if accelerator else None,
        planned=_planned(config) if accelerator else None,
    )


def _planned_seconds(
    case: Case, shape: Shape, work: Update, device: Device | None, micro_batch: int
) -> float | None:
    if device is None:
        return None
    speed = Speed(2, 1, 1, device.bf16_flops, device.bandwidth, micro_batch, cache_bytes=0.0)
    return update_seconds(shape, speed, case.lengths, 1, work)


def _planned(config: RunConfig) -> float:
    assert config.plan is not None
    parts = config.plan.memory_parts or []
    return sum(part.mebibytes * MIB for part in parts if part.name.startswith("training"))


def _held() -> float:
    """Return the peak memory of this GPU in bytes: torch's peak, and memory outside torch.

    Memory outside torch is that of the CUDA context, for example. The result is correct only if no other
    process uses the GPU.
    """
    free, whole = torch.cuda.mem_get_info()
    return torch.cuda.max_memory_reserved() + whole - free - torch.cuda.memory_reserved()


def outcome_of(dumped: Mapping[str, Any]) -> Outcome:
    """Return the outcome from which ``asdict`` made this JSON object."""
    return Outcome(
        **{**dumped, "case": Case(**dumped["case"]), "seconds": tuple(dumped["seconds"])},
    )


HEAD = (
    "| model | context | layout | settings | tokens/s | computed/s | MFU | s an update | planned | GiB"
    " | planned |",
    "|---|--:|---|---|--:|--:|--:|--:|--:|--:|--:|",
)


def line(found: Outcome) -> str:
    """Return a line of the table."""
    case, spread = found.case, f"{found.median:.2f} ({min(found.seconds):.2f}-{max(found.seconds):.2f})"
    cells = [
        case.model, f"{case.context:,}", case.layout, case.settings,
        f"{found.tokens / found.median:,.0f}", f"{found.computed / found.median:,.0f}",
        _or_dash(found.utilisation, "{:.1%}"), spread, _or_dash(found.planned_seconds, "{:.2f}"),
        _or_dash(found.held and found.held / GIB, "{:.1f}"),
        _or_dash(found.planned and found.planned / GIB, "{:.1f}"),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _or_dash(value: float | None, form: str) -> str:
    return form.format(value) if value is not None else "-"


def accelerator_here() -> str | None:
    """Return the catalogue's name of the first GPU, or None if torch finds no GPU.

    Raises:
        SystemExit: the catalogue does not have this GPU.
    """
    if not torch.cuda.is_available():
        return None
    product = torch.cuda.get_device_name(0).replace(" ", "-")
    found = next((name for name, device in ACCELERATORS.items() if product in device.products), None)
    if found is None:
        sys.exit(f"{product} is not in the catalogue; choose one that is as fast with --accelerator")
    return found


def cases(arguments: argparse.Namespace, accelerator: str | None) -> Iterator[Case]:
    """Yield the selected cases."""
    usual = ["Qwen/Qwen3-0.6B", "Qwen/Qwen3-4B"] if accelerator else [TINY]
    context = arguments.context or (16_384 if accelerator else 1024)
    for model in arguments.model or usual:
        for layout in arguments.layout or LAYOUTS:
            for settings in arguments.settings or SETTINGS:
                yield Case(model, context, arguments.rank, layout, settings)


def accounts(arguments: argparse.Namespace) -> Iterator[str]:
    """Yield the lines of the table of FLOPs and bytes. The last lines have prime-rl's published speeds."""
    name = arguments.accelerator or "nvidia-h100-80gb"
    context = arguments.context or 16_384
    yield f"{name}, torch {torch.__version__}, rank {arguments.rank}, context {context:,}\n"
    yield from account.HEAD
    for model in arguments.model or list(account.PUBLISHED):
        layouts = {}
        for layout in arguments.layout or LAYOUTS:
            case = Case(model, context, arguments.rank, layout, "plain")
            rows = account.rows_of(case.prompt, case.completion, ROLLOUTS, shared=layout == "shared")
            layouts[layout] = (rows, ROLLOUTS * (case.prompt + case.completion))
        # As prime-rl measures: one sequence that fills the context, and every token is trained on.
        layouts["prime-rl"] = (account.rows_of(1, context, 1, shared=False), context)
        shape = config_of(shape_named(model))
        yield from account.table(model, shape, arguments.rank, layouts, ACCELERATORS[name])
    for model, tokens in account.PUBLISHED.items():
        yield f"\nprime-rl publishes {tokens:,} tokens/s for {model}, context 16,384, rank 16, one H100."


def main() -> None:
    """Measure the update of each selected case, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", choices=("Qwen/Qwen3-0.6B", "Qwen/Qwen3-1.7B", "Qwen/Qwen3-4B", "Qwen/Qwen3-8B", TINY),
        action="append", help="run only this model; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--layout", choices=LAYOUTS, action="append", help="run only this layout; may be repeated"
    )
    parser.add_argument(
        "--settings", choices=SETTINGS, action="append", help="run only these settings; may be repeated"
    )
    parser.add_argument(
        "--context", type=int, help="context length in tokens (default: 16384 on a GPU, 1024 on the CPU)"
    )
    parser.add_argument("--rank", type=int, default=16, help="LoRA rank of the adapter")
    parser.add_argument(
        "--updates", type=int, default=3, help="number of updates that are measured in each case"
    )
    parser.add_argument(
        "--accelerator",
        choices=sorted(ACCELERATORS),
        help="GPU whose FLOPs per second are used, from the catalogue",
    )
    parser.add_argument(
        "--account", action="store_true",
        help="count operations and bytes by phase, without a GPU, for --accelerator (default: an H100)",
    )  # fmt: skip
    arguments = parser.parse_args()
    if arguments.account:
        for text in accounts(arguments):
            print(text, flush=True)
        return
    accelerator = (arguments.accelerator or accelerator_here()) if torch.cuda.is_available() else None
    torch.set_num_threads(machine.usable_cores())
    print(f"{accelerator or 'cpu'}, torch {torch.__version__}, rank {arguments.rank}\n")
    print("\n".join(HEAD), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for case in cases(arguments, accelerator):
            model = random_model(case.model, Path(folder), "cuda" if accelerator else "cpu")
            if accelerator:
                gc.collect()  # removes the model of the last case
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            try:
                print(line(measure(case, model, accelerator, arguments.updates)), flush=True)
            except MemoryExhausted as error:
                print(f"{case}: {error}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
