"""Compares the planned memory of a run on the CPU with the memory that its processes use.

The benchmark runs the real trainer with each engine. The models never generate an end token, so every
sequence is as long as the plan allows. During the run the benchmark reads the proportional set size of all
processes.

`make bench-memory` prints tables in MiB, at the moment of the highest use. `--baselines` measures the
constants in rft_planner/host.py, with a model of a few kilobytes.
"""

import argparse
import ctypes
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rft_api.job import RFTJobSpec
from rft_api.parameters import Dtype
from rft_api.status import Plan
from rft_planner.modelconfig import from_config
from rft_planner.plan import plan
from rft_planner.precision import WIDTHS
from rft_planner.shapes import Shape
from rft_run.config import JobIdentity, RunConfig

ROOT = Path(__file__).resolve().parents[1]
MIB = 2.0**20
ENGINES = ("vllm", "transformers")
TREES = {"training": "trainer", "sampling": "vLLM"}
POLL_SECONDS = 0.02
GROWTH = 1.003
"""A process's proportional set size is read again only when its number of resident pages has grown by this
factor, because reading it is slow.
"""
CALLS_PER_SEARCH = 10
"""How many times the memory is measured before the processes are searched for again.

The search reads a file for each process of the machine. On a machine with a test cluster, the search took
more processor time than the measured run.
"""


@dataclass(frozen=True)
class Case:
    """A model, and the settings of a run with it. Lengths are in tokens."""

    name: str
    context: int
    max_tokens: int
    least: bool
    """True: the plan has the minimum memory, with micro-batches of one sequence. False: the plan has the
    recommended memory.
    """
    engine: str = "vllm"
    dtype: Dtype = "float32"


CASES = (
    Case("SmolLM2-135M", 128, 72, least=True),
    Case("SmolLM2-135M", 256, 200, least=False),
    Case("random-58M", 512, 448, least=True),
    Case("random-58M", 512, 448, least=False),
    Case("SmolLM2-135M", 256, 200, least=False, engine="transformers"),
    Case("random-58M", 512, 448, least=True, engine="transformers"),
    Case("random-58M", 512, 448, least=False, engine="transformers"),
)
"""The runs that are measured. In each of them ``max_tokens`` is the length of the longest completion that
fits into the context, together with the chat template and the prompt.
"""


@dataclass
class Peak:
    """Peak memory in bytes: of the trainer's process, of vLLM's processes, and of all processes together.

    ``trees`` has the first two, with the keys ``trainer`` and ``vLLM``.
    """

    trees: dict[str, float] = field(default_factory=dict)
    total: float = 0.0

    def add(self, held: dict[str, float]) -> None:
        """Update the peaks with a new measurement.

        After vLLM has ended, the trainer's peak is not updated, for two reasons. All pages of the libraries
        that both processes map would then count as the trainer's. And the peak would depend on when the
        trainer frees its weights, so on the machine's load.
        """
        self.total = max(self.total, sum(held.values()))
        if self.trees.get("vLLM") and not held["vLLM"]:
            return
        for name, amount in held.items():
            self.trees[name] = max(self.trees.get(name, 0.0), amount)


@dataclass(frozen=True)
class Outcome:
    """A case, its planned memory (of ``trainer`` and ``vLLM``), and its measured memory, in bytes."""

    case: Case
    predicted: dict[str, float]
    measured: Peak
    seconds: float

    @property
    def ratio(self) -> float:
        """Planned memory divided by measured memory, for all processes together."""
        return sum(self.predicted.values()) / self.measured.total

    @property
    def ratios(self) -> dict[str, float]:
        """Planned memory divided by measured memory, for ``trainer`` and ``vLLM``."""
        return {tree: size / self.measured.trees[tree] for tree, size in self.predicted.items()}


def measure(case: Case, model: Path, folder: Path) -> Outcome:
    """Run a case in ``folder``. Return its planned and measured memory.

    Raises:
        RuntimeError: the trainer failed. The message contains the end of its log.
    """
    config = run_config(case, model, folder)
    assert config.plan is not None
    started = time.monotonic()
    measured = follow(config, folder)
    return Outcome(case, predicted(config.plan, case.engine), measured, time.monotonic() - started)


def predicted(made: Plan, engine: str) -> dict[str, float]:
    """Return the planned bytes of ``trainer`` and ``vLLM``, without the pod's shared memory and margin.

    The engine ``transformers`` runs in the trainer's process. With it there is only ``trainer``.
    """
    found: dict[str, float] = {}
    for part in made.memory_parts or []:
        tree = TREES.get(part.name.split(":")[0])
        if tree is not None:
            tree = tree if engine == "vllm" else "trainer"
            found[tree] = found.get(tree, 0.0) + part.mebibytes * MIB
    return found


def run_config(case: Case, model: Path, folder: Path) -> RunConfig:
    """Write rows that fill the context. Return the configuration of a run with these rows."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, count in (("rows", 64), ("held-out", 1)):
        lines = [json.dumps(row(case, f"{name} {number}")) for number in range(count)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    made = planned(case, model)
    assert made.effective is not None
    return RunConfig(
        job=JobIdentity(name="memory", namespace="bench", uid="uid"),
        spec=spec_of(case, model),
        effective=made.effective,
        plan=made,
        run_dir=str(folder),
        dataset_path=str(folder / "rows.jsonl"),
        evaluation_path=str(folder / "held-out.jsonl"),
    )


def row(case: Case, what: str) -> dict[str, Any]:
    """Return a row whose prompt fills the context, except for the tokens of the completion.

    ``what`` is a text in the prompt, by which the rows differ.
    """
    words = case.context - case.max_tokens - 48  # tokens that the chat template and the numbers add
    text = " ".join(["w1", what, *(["one"] * max(1, words))])
    return {"messages": [{"role": "user", "content": text}], "answer": "1"}


def planned(case: Case, model: Path) -> Plan:
    """Return the plan, with the recommended or the minimum memory, as ``case`` says."""
    shape = shape_of(model)
    comfortable = plan(spec_of(case, model), "uid", shape=shape)
    if not case.least:
        return comfortable
    return plan(spec_of(case, model, comfortable.least_memory), "uid", shape=shape)


def shape_of(model: Path) -> Shape:
    """Return the shape of the model in a folder."""
    return from_config(json.loads((model / "config.json").read_text(encoding="utf-8")))


def spec_of(case: Case, model: Path, memory: str | None = None) -> RFTJobSpec:
    """Return the spec of a job of two steps. In the second step the sampler has an adapter, and AdamW its
    state.

    ``memory`` is the memory that the job requests. None: the plan chooses the memory.
    """
    return RFTJobSpec.model_validate(
        {
            "model": {"name": str(model)},
            "dataset": {"uri": "./rows.jsonl"},
            "graders": [{"name": "exact", "exactMatch": {}}],
            "training": {
                "batchSizeTokens": max(1024, 2 * case.context), "maxContextLength": case.context, "seed": 1,
                "cpuDtype": case.dtype,
            },
            "sampling": {"engine": case.engine, "maxTokens": case.max_tokens, "numRollouts": 2},
            "resources": {"gpus": 0} | ({"memory": memory} if memory else {}),
            "preflight": "off",
            "stop": {"maxSteps": 2},
            "storage": {"ephemeral": {}},
        }
    )  # fmt: skip


def follow(config: RunConfig, folder: Path) -> Peak:
    """Run the trainer and return its peak memory.

    Raises:
        RuntimeError: the trainer failed.
    """
    path = folder / "run.json"
    path.write_text(json.dumps(config.dump()))
    source = os.pathsep.join(str(ROOT / part) for part in ("operator", "trainer-image"))
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "rft_trainer", "--config", str(path)],
            env=os.environ | {"PYTHONPATH": source}, stdout=subprocess.DEVNULL, stderr=log,
        )  # fmt: skip
        peak = Peak()
        watch = Watch(process.pid)
        while process.poll() is None:
            peak.add(watch.held())
            time.sleep(POLL_SECONDS)
    if process.returncode:
        raise RuntimeError(
            f"the trainer ended with {process.returncode}: {(folder / 'log').read_text()[-2000:]}"
        )
    return peak


@dataclass(frozen=True)
class Held:
    """The memory of a process when it was last read."""

    pages: float
    """Number of resident pages when the memory was last read."""
    own: float
    """Proportional set size of the anonymous and the shared memory, in bytes."""
    files: dict[str, float]
    """Resident bytes of each mapped file."""


class Watch:
    """Measures the memory of a process and its descendants.

    The memory of a process is read again only when its number of resident pages has changed: has grown by the
    factor ``GROWTH``, or has become clearly smaller.

    Pages of files, mostly of libraries, are divided among these processes only, as in a container. So the
    result does not depend on other processes of the machine that map the same files. The kernel's own
    proportional set size depends on them: it was 160 MiB smaller while another run was active.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._known: dict[int, Held] = {}
        self._parents: dict[int, int] = {}
        self._calls = 0

    def held(self) -> dict[str, float]:
        """Return the bytes of the trainer's process (``trainer``), and of all its descendants (``vLLM``)."""
        if self._calls % CALLS_PER_SEARCH == 0:
            self._parents = descendants(self._root)
        self._calls += 1
        parents = self._parents
        there = dict(resident(pid for pid in parents if not shares_memory(pid, parents[pid])))
        for gone in self._known.keys() - there.keys():
            del self._known[gone]
        for pid, pages in there.items():
            before = self._known[pid].pages if pid in self._known else 0.0
            if pages > GROWTH * before or pages < before / 1.1:
                found = held_by(pid, pages)
                if found is not None:
                    self._known[pid] = found
        sharing = Counter(path for held in self._known.values() for path in held.files)
        sizes = {
            pid: held.own + sum(size / sharing[path] for path, size in held.files.items())
            for pid, held in self._known.items()
        }
        trainer = sizes.pop(self._root, 0.0)
        return {"trainer": trainer, "vLLM": sum(sizes.values())}


def descendants(root: int) -> dict[int, int]:
    """Return the PIDs of a process and all its descendants. The value for each PID is its parent's PID.

    The value for ``root`` is 0.
    """
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        children.setdefault(parent, []).append(int(folder.name))
    found, pids = {root: 0}, [root]
    for pid in pids:
        pids += children.get(pid, [])
        found |= dict.fromkeys(children.get(pid, []), pid)
    return found


_KCMP = {"x86_64": 312, "aarch64": 272}
_KCMP_VM = 1


def shares_memory(pid: int, parent: int) -> bool:
    """Return whether a process uses its parent's memory. Return False if the kernel cannot compare the
    processes.

    Python starts a program by vfork: the child uses its parent's memory until the program starts. The kernel
    reports this memory for both processes, so it would count twice.
    """
    number = _KCMP.get(platform.machine())
    return bool(parent and number and ctypes.CDLL(None).syscall(number, pid, parent, _KCMP_VM, 0, 0) == 0)


def resident(pids: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield the PID and the number of resident pages of each process that exists."""
    for pid in pids:
        try:
            yield pid, int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            continue


def held_by(pid: int, pages: int) -> Held | None:
    """Read the memory of a process. Return None if the process has ended.

    ``pages`` is its number of resident pages, which is kept in the result.
    """
    try:
        sums = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        mappings = Path(f"/proc/{pid}/smaps").read_text().splitlines()
    except OSError:
        return None
    own = sum(_kibibytes(line) for line in sums if line.startswith(("Pss_Anon:", "Pss_Shmem:")))
    return Held(pages, own, file_pages(mappings))


def file_pages(lines: Iterable[str]) -> dict[str, float]:
    """Return the resident bytes of each mapped file, from the lines of ``smaps``.

    Pages that the process has changed are private copies. They count as anonymous memory, not as pages of the
    file.
    """
    largest: dict[tuple[str, str], float] = {}
    place = ("", "")
    in_memory = 0.0
    for line in lines:
        words = line.split(maxsplit=5)
        if not words[0].endswith(":"):  # a mapping begins: addresses, rights, offset, device, inode, path
            named = words[5] if len(words) == 6 else ""
            mapped = named.startswith("/") and not named.startswith(_SHARED_MEMORY)
            place = (named, words[2]) if mapped else ("", "")
        elif words[0] == "Rss:":
            in_memory = _kibibytes(line)
        elif words[0] == "Anonymous:" and place[0]:
            # One process may map the same part of a file twice: a process that is trainer and sampler maps
            # the checkpoint for each role.
            largest[place] = max(largest.get(place, 0.0), in_memory - _kibibytes(line))
    found: dict[str, float] = {}
    for (path, _), size in largest.items():
        found[path] = found.get(path, 0.0) + size
    return found


_SHARED_MEMORY = ("/dev/shm/", "/dev/zero", "/memfd:", "/SYSV")  # noqa: S108 - paths that are read, not written


def _kibibytes(line: str) -> float:
    return 1024.0 * int(line.split()[1])


def model_named(name: str, folder: Path) -> Path:
    """Return the folder of the model with this name. Create the model if the folder does not exist."""
    target = folder / name
    if not target.exists():
        _MODELS[name](target)
    return target


def endless_example(target: Path) -> None:
    """Write the example model, but with an end token that it never generates.

    Only its configuration files are new. The others, such as the weights, are links to the model's files.
    """
    from rft_trainer.runtime import models

    source = models.resolve(models.EXAMPLE_MODEL)
    target.mkdir(parents=True)
    for path in source.iterdir():
        if not path.name.endswith("config.json"):
            (target / path.name).symlink_to(path)
            continue
        config = json.loads(path.read_text(encoding="utf-8"))
        config |= {"eos_token_id": 5} if "eos_token_id" in config else {}
        config |= {"eos_token": "<file_sep>"} if "eos_token" in config else {}
        (target / path.name).write_text(json.dumps(config))


def random_model(target: Path) -> None:
    """Write a random model of 58 million parameters, with few, wide layers and an untied output layer."""
    _random(target, vocabulary=32_000, layers=6, hidden=512, intermediate=2048, heads=8)


def hardly_a_model(target: Path) -> None:
    """Write a model that needs almost no memory."""
    _random(target, vocabulary=64, layers=1, hidden=64, intermediate=64, heads=2)


_MODELS = {"SmolLM2-135M": endless_example, "random-58M": random_model, "baseline": hardly_a_model}


def _random(
    target: Path, *, vocabulary: int, layers: int, hidden: int, intermediate: int, heads: int
) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    llama: Any = LlamaForCausalLM
    save_tokenizer(target, vocabulary)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=heads, max_position_embeddings=4096,
        eos_token_id=0, bos_token_id=None,
    )  # fmt: skip
    model = llama(config)
    model.to(torch.bfloat16).save_pretrained(target)


def save_tokenizer(target: Path, vocabulary: int) -> None:
    """Write a tokenizer of ``vocabulary`` words, with a chat template that adds no tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<end>", "?", *(f"w{number}" for number in range(vocabulary - 2))]
    raw = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="?"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast: Any = PreTrainedTokenizerFast
    tokenizer = fast(tokenizer_object=raw, eos_token="<end>", unk_token="?")
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    tokenizer.save_pretrained(target)


HEAD = (
    "| dtype | engine | model | context | micro-batch | trainer | ratio | vLLM | ratio | all | ratio |",
    "|---|---|---|--:|---|--:|--:|--:|--:|--:|--:|",
)


def line(found: Outcome) -> str:
    """Return a line of the table: planned MiB, measured MiB and their ratio. There are three of each: for the
    trainer, for vLLM and in total.
    """
    case = found.case
    trees = [_pair(found.predicted.get(tree), found.measured.trees.get(tree)) for tree in TREES.values()]
    every = _pair(sum(found.predicted.values()), found.measured.total)
    size = "one sequence" if case.least else "comfortable"
    names = (case.dtype, case.engine, case.name, str(case.context), size)
    return f"| {' | '.join([*names, *trees, every])} |"


def _pair(one: float | None, other: float | None) -> str:
    if one is None or not other:
        return "– | –"
    return f"{one / MIB:.0f} / {other / MIB:.0f} | {one / other:.2f}"


def main() -> None:
    """Compare planned and measured memory for each case, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--engine", choices=ENGINES, action="append", help="run only this engine; may be repeated"
    )
    parser.add_argument(
        "--dtype", choices=WIDTHS, action="append", help="run only this dtype; may be repeated"
    )
    parser.add_argument(
        "--baselines",
        action="store_true",
        help="measure the constants of rft_planner/host.py instead of the cases",
    )
    parser.add_argument(
        "--only",
        type=int,
        action="append",
        help="run only the case with this number, from 0; may be repeated",
    )
    arguments = parser.parse_args()
    engines, dtypes = arguments.engine or ENGINES, arguments.dtype or WIDTHS
    cases = [case for index, case in enumerate(CASES) if not arguments.only or index in arguments.only]
    if arguments.baselines:
        cases = [Case("baseline", 128, 64, least=True, engine=engine) for engine in ENGINES]
    cases = [replace(case, dtype=dtype) for dtype in dtypes for case in cases]
    with tempfile.TemporaryDirectory() as folder:
        print("\n".join(HEAD), flush=True)
        for number, case in enumerate(case for case in cases if case.engine in engines):
            model = model_named(case.name, Path(folder))
            found = measure(case, model, Path(folder) / str(number))
            print(f"{found.seconds:.0f} s for {case}", file=sys.stderr)
            print(line(found), flush=True)


if __name__ == "__main__":
    main()
