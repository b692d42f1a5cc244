"""Trains an example by ``rft run``, reads the memory of its processes, and checks the run's records."""

import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.memory import MIB, ROOT, Watch, descendants, save_tokenizer
from bench.update import TINY, random_model, shape_named
from rft_api.dumper import dump
from rft_api.loader import load_file
from rft_api.status import MemoryPart
from rft_run.config import read_run_config
from rft_run.folder import RunFolder
from rft_run.mismatch import STOP_KL
from rft_run.steps import StepRecord, read_steps

POLL_SECONDS = 0.3
LARGEST_PLAN = 1.2
"""Maximum ratio of planned to measured memory. The minimum is 1, because a plan must have at least the memory
that was measured.
"""
EVEN = r"w[0-9]*[02468]( .*)?"
"""Completions that match this pattern get a reward if the model has random weights.

Such a model writes words like ``w17``. The first word of the completion must have an even number.
"""


def manifest(target: Path, device: str, model: str | None = None, steps: int | None = None) -> Path:
    """Write the arithmetic example, for one GPU or the CPU, into the file ``target``. Return the file.

    ``model`` is the name of a shape in ``bench.update``. If it is None, the job has the example's model and
    graders. Otherwise a model of this shape with random weights is written beside the file, and completions
    that match ``EVEN`` get a reward.

    ``steps`` replaces the example's number of steps. If it is None, the example's number is kept.
    """
    job, *others = [document.body for document in load_file(ROOT / "examples" / "arithmetic.yaml")]
    spec = job["spec"] | {"resources": {"gpus": 1 if device == "cuda" else 0}}
    if steps is not None:
        spec |= {"stop": {"maxSteps": steps}}
    if model is not None:
        folder = random_model(model, target.parent / "models", device)
        save_tokenizer(folder, shape_named(model).vocabulary)
        spec |= {
            "model": {"name": str(folder)},
            "graders": [{"name": "even", "regex": {"pattern": EVEN, "fullMatch": True}}],
            "evaluation": {"fraction": 0},
            "preflight": "off",
        }
    if model == TINY:
        spec |= {"sampling": spec["sampling"] | {"engine": "transformers"}}
    target.write_text("---\n".join(map(dump, [{**job, "spec": spec}, *others])), encoding="utf-8")
    return target


def train(given: Path, folder: Path, device: str) -> Counter[str]:
    """Run ``rft run`` on the manifest ``given``, and return the peaks of the memory in use, in MiB.

    The key ``whole`` is the peak of all memory in use. On a GPU there may also be the keys ``training`` and
    ``sampling``, see ``gpu_memory``.

    Raises:
        RuntimeError: if the run failed. The message contains the end of its output.
    """
    source = os.pathsep.join(str(ROOT / part) for part in ("operator", "trainer-image"))
    command = [sys.executable, "-m", "rft_cli.main", "run", str(given), "--output", str(folder)]
    printed = folder.with_suffix(".txt")
    peak: Counter[str] = Counter()
    with printed.open("w") as log:
        process = subprocess.Popen(
            command, env=os.environ | {"PYTHONPATH": source}, stdout=log, stderr=subprocess.STDOUT
        )
        watch = Watch(process.pid)
        while process.poll() is None:
            peak |= gpu_memory(process.pid) if device == "cuda" else host_memory(watch)  # keeps the maxima
            time.sleep(POLL_SECONDS)
    if process.returncode:
        raise RuntimeError(f"rft run ended with {process.returncode}: {printed.read_text()[-2000:]}")
    return peak


def host_memory(watch: Watch) -> Counter[str]:
    """Return the total host memory of all processes of a run, in MiB."""
    return Counter({"whole": round(sum(watch.held().values()) / MIB)})


def gpu_memory(root: int) -> Counter[str]:
    """Return the MiB in use on the first GPU: in total, for training and for sampling. For the keys, see
    ``by_role``.

    ``root`` is the process ID of ``rft run``. In a container, nvidia-smi may print process IDs that are
    unknown in the container. Then the result has only the total.
    """
    used = _nvidia_smi("--query-gpu=memory.used")
    return by_role(used, _nvidia_smi("--query-compute-apps=pid,used_memory"), _commands(root))


def by_role(used: Sequence[str], processes: Sequence[str], commands: Mapping[int, str]) -> Counter[str]:
    """Return the GPU memory in use, in MiB, with these keys:

    - ``whole``: all memory in use.
    - ``training``: the memory that the trainer's processes use.
    - ``sampling``: the memory that the run's other processes use.

    ``used`` and ``processes`` are lines that nvidia-smi printed. ``commands``: the command line of each
    process of the run.
    """
    found = Counter({"whole": int(used[0])})
    for line in processes:
        pid, _, mebibytes = line.partition(",")
        command = commands.get(int(pid))
        if command is not None and mebibytes.strip().isdigit():
            found["training" if "rft_trainer" in command else "sampling"] += int(mebibytes)
    return found


def _nvidia_smi(query: str) -> list[str]:
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def _commands(root: int) -> dict[int, str]:
    found = {}
    for pid in descendants(root):
        try:
            found[pid] = (
                Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            )
        except OSError:
            continue
    return found


def compared(parts: Sequence[MemoryPart], peak: Mapping[str, float]) -> dict[str, Any]:
    """Compare the planned memory with ``peak``, the measured memory in MiB. Return three entries:

    - ``planned`` and ``measured``: the MiB, with the keys ``whole``, ``training`` and ``sampling``.
    - ``fits``: whether a planned amount is at least the measured amount, and at most ``LARGEST_PLAN`` times
      the measured amount. It has the keys ``training`` and ``sampling`` if they were measured. If neither
      was measured, it has only the key ``whole``.
    """
    planned: Counter[str] = Counter()
    for part in parts:
        planned[part.name.partition(":")[0]] += round(part.mebibytes)
    planned = Counter({"whole": planned.total()}) | planned
    roles = [role for role in ("training", "sampling") if peak.get(role)] or ["whole"]
    fits = {role: peak[role] <= planned[role] <= LARGEST_PLAN * peak[role] for role in roles}
    return {"planned": dict(planned), "measured": dict(peak), "fits": fits}


def memory_of(folder: Path, peak: Mapping[str, float]) -> dict[str, Any]:
    """Return the memory of a run compared with its plan: see ``compared``."""
    plan = read_run_config(RunFolder(folder).config.read_text(encoding="utf-8")).plan
    return compared((plan and plan.memory_parts) or [], peak)


def learned(records: Sequence[StepRecord]) -> dict[str, Any]:
    """Return how a run learned, and whether sampler and trainer agreed. Three of the values are booleans:

    - ``rises``: the mean reward of the last quarter of the steps is above that of the first quarter.
    - ``applied``: there were updates, and every update was published. After each update, the run itself has
      checked that the sampler uses it.
    - ``agrees``: ``mismatchKl`` is at most ``STOP_KL``. ``mismatchKl`` is the largest KL between trainer and
      sampler.
    """
    rewards = [record.reward or 0.0 for record in records]
    quarter = max(1, len(records) // 4)
    first, last = (statistics.fmean(part) for part in (rewards[:quarter], rewards[-quarter:]))
    mismatch = max((record.mismatch_kl or 0.0 for record in records), default=0.0)
    updated = sum((record.updates or 0) > 0 for record in records)
    return {
        "steps": len(records),
        "rewardFirst": first, "rewardLast": last, "rises": last > first,
        "mismatchKl": mismatch, "agrees": mismatch <= STOP_KL,
        "applied": updated > 0 and records[-1].adapter_version == updated,
        "secondsPerStep": statistics.median(record.step_seconds or 0.0 for record in records),
        "sampledPerSecond": statistics.median(record.tokens_per_second or 0.0 for record in records),
    }  # fmt: skip


def steps_of(folder: Path) -> list[StepRecord]:
    """Return the records of a run's steps."""
    return list(read_steps(RunFolder(folder).metrics))
