"""The update alone: tokens per second, share of the accelerator's rate, and time and memory against the plan.

`python -m bench.update` trains models with random weights, in the shape of published ones, on groups of
random tokens: no value changes what is measured. An update is all that stands between rollouts and the next
adapter: layout, forward and backward passes, objective, AdamW. On a GPU two shapes with a context of 16,384
tokens; on the CPU one that is hardly a model, to see that it runs.

Two layouts: ``long``, a short prompt and completions that fill the context, each in a row of its own; and
``shared``, one row with a prompt of half the context and all completions. Two settings: ``plain``, neither
top-k nor a reference policy; and ``usual``, a job's defaults, which have both.
"""

import argparse
import gc
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

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
from rft_trainer.data import Prompt
from rft_trainer.data.rows import Row as DataRow
from rft_trainer.engines import model_dtype
from rft_trainer.learn.optimizer import make_optimizer
from rft_trainer.learn.packing import Row, completions_of, rows_of_group
from rft_trainer.learn.policy import Policy, PolicyOptions
from rft_trainer.learn.ranks import Followers
from rft_trainer.learn.update import update
from rft_trainer.rollout.engine import Generated
from rft_trainer.rollout.groups import Group, Rollout
from rft_trainer.runtime import machine
from rft_trainer.setup import sampling_parameters, update_settings

ROLLOUTS = 4
MAX_COMPLETION = 16_384
"""The most that ``sampling.maxTokens`` takes."""
TINY = "tiny"
LAYOUTS = ("long", "shared")
SETTINGS = ("plain", "usual")


@dataclass(frozen=True)
class Case:
    """One line of the table; lengths in tokens."""

    model: str
    context: int
    rank: int
    layout: str
    settings: str

    @property
    def prompt(self) -> int:
        """Tokens of the group's prompt."""
        if self.layout == "shared":
            return self.context // 2
        return max(self.context // 32, self.context - MAX_COMPLETION)

    @property
    def completion(self) -> int:
        """Tokens of each completion: what is left of the context, for one of them or for all."""
        return (self.context - self.prompt) // (1 if self.layout == "long" else ROLLOUTS)

    @property
    def lengths(self) -> Lengths:
        """The same as the planner takes it."""
        return Lengths(self.prompt, self.completion, self.completion)


@dataclass(frozen=True)
class Outcome:
    """What updates of one group took, and what the planner says of them; bytes, seconds, operations."""

    case: Case
    computed: int
    """Tokens of a forward pass."""
    seconds: tuple[float, ...]
    flops: float
    """Operations that an update needs; see ``needed_flops``."""
    rate: float | None
    """Operations per second of the data sheet, in bf16; not known of a CPU."""
    planned_seconds: float | None
    held: float | None
    planned: float | None

    @property
    def tokens(self) -> int:
        """Tokens that are trained on: every rollout with its prompt."""
        return ROLLOUTS * (self.case.prompt + self.case.completion)

    @property
    def median(self) -> float:
        """Seconds of an update."""
        return statistics.median(self.seconds)

    @property
    def utilisation(self) -> float | None:
        """Model FLOPs utilisation: needed operations over what the data sheet promises for the time."""
        return self.flops / (self.median * self.rate) if self.rate is not None else None


def needed_flops(shape: Shape, rows: Sequence[Row], work: Update) -> float:
    """Operations of an update in a forward and a backward pass, and in the reference's forward pass.

    Nothing that is computed twice is counted (Chowdhery et al. 2022, PaLM, appendix B), nor what a mask
    hides. The base is frozen: its weights take 2 operations per token forward and 2 backward, an adapter's 2
    and 4, attention twice as many backward as forward.
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
    """Return the shape of a Qwen3 model of the catalogue, or the tiny one's."""
    if name == TINY:
        small = shape_named("Qwen/Qwen3-0.6B")
        # The norms of heads stay as they are: two of a head's size in each layer.
        return replace(
            small, layers=2, hidden=64, intermediate=128, heads=2, kv_heads=1, vocabulary=512, context=4096
        )
    shape = shape_of(name)
    assert shape is not None
    return shape


def config_of(shape: Shape) -> Any:
    """Return the configuration of a Qwen3 model of that shape."""
    from transformers import Qwen3Config

    return Qwen3Config(
        vocab_size=shape.vocabulary, hidden_size=shape.hidden, intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim, max_position_embeddings=shape.context, tie_word_embeddings=shape.tied,
    )  # fmt: skip


def random_model(name: str, folder: Path, device: str) -> Path:
    """Return a folder with a model of that shape and random weights in bfloat16, made once."""
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
    """Return the configuration of a run with one GPU that trains and one that samples, or on the CPU."""
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
    """Return a prompt and its rollouts of random tokens, half of them better than the others."""
    draw = random.Random(1)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(draw.choices(range(vocabulary), k=count))

    prompt = Prompt(DataRow(1, [], {}, ""), tokens(case.prompt))
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
    """Train on one group ``updates`` times, after once that does not count.

    Raises:
        MemoryExhausted: if a forward pass does not fit.
    """
    config = run_config(case, model, accelerator)
    shape = shape_named(case.model)
    training = config.spec.training
    policy = Policy(PolicyOptions(model, training, config.device, model_dtype(config), seed=1))
    optimizer = make_optimizer(policy.trainable(), training)
    settings = update_settings(config, sampling_parameters(config.spec.sampling))
    group = group_of(case, shape.vocabulary)
    rows = rows_of_group(
        group.prompt.token_ids,
        completions_of(group, settings.mask_truncated),
        policy.hidden_size_for_packing,
        settings.longest_shared_row,
    )
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
    """Bytes of this GPU at the fullest moment: torch's, and what is taken besides, its context.

    Right where nothing else uses the GPU.
    """
    free, whole = torch.cuda.mem_get_info()
    return torch.cuda.max_memory_reserved() + whole - free - torch.cuda.memory_reserved()


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
    """Return the catalogue's name of the first GPU, None where torch sees none.

    Raises:
        SystemExit: if the catalogue does not have it.
    """
    if not torch.cuda.is_available():
        return None
    product = torch.cuda.get_device_name(0).replace(" ", "-")
    found = next((name for name, device in ACCELERATORS.items() if product in device.products), None)
    if found is None:
        sys.exit(f"{product} is not in the catalogue; name one that is as fast with --accelerator")
    return found


def cases(arguments: argparse.Namespace, accelerator: str | None) -> Iterator[Case]:
    """Yield what was asked for."""
    usual = ["Qwen/Qwen3-0.6B", "Qwen/Qwen3-4B"] if accelerator else [TINY]
    context = arguments.context or (16_384 if accelerator else 1024)
    for model in arguments.model or usual:
        for layout in arguments.layout or LAYOUTS:
            for settings in arguments.settings or SETTINGS:
                yield Case(model, context, arguments.rank, layout, settings)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", choices=("Qwen/Qwen3-0.6B", "Qwen/Qwen3-1.7B", "Qwen/Qwen3-4B", "Qwen/Qwen3-8B", TINY),
        action="append", help="only this one; may be repeated",
    )  # fmt: skip
    parser.add_argument("--layout", choices=LAYOUTS, action="append", help="only this one; may be repeated")
    parser.add_argument("--settings", choices=SETTINGS, action="append", help="only these; may be repeated")
    parser.add_argument("--context", type=int, help="tokens: 16384 on a GPU, 1024 on the CPU")
    parser.add_argument("--rank", type=int, default=16, help="of the adapter")
    parser.add_argument("--updates", type=int, default=3, help="that count, of each case")
    parser.add_argument("--accelerator", choices=sorted(ACCELERATORS), help="whose rate to count by")
    arguments = parser.parse_args()
    accelerator = (arguments.accelerator or accelerator_here()) if torch.cuda.is_available() else None
    torch.set_num_threads(machine.usable_cores())
    print(f"{accelerator or 'cpu'}, torch {torch.__version__}, rank {arguments.rank}\n")
    print("\n".join(HEAD), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for case in cases(arguments, accelerator):
            model = random_model(case.model, Path(folder), "cuda" if accelerator else "cpu")
            if accelerator:
                gc.collect()  # the last case's model
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            try:
                print(line(measure(case, model, accelerator, arguments.updates)), flush=True)
            except MemoryExhausted as error:
                print(f"{case}: {error}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
