"""The parts of ``make gpu-check``: what each part measures, and how long it may take."""

import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from packaging.version import Version

from bench import gpu_check, update
from bench.cpu_kernels import ON_CPU
from bench.gpu import runs
from bench.memory import ROOT
from rft_trainer.learn import attention
from rft_trainer.runtime import machine

OLDEST = {
    "torch": "2.11.0", "triton": "3.6.0", "vllm": "0.25.0", "transformers": "5.17.0", "peft": "0.17.0",
}  # fmt: skip
"""The oldest package versions with which this check works. The newest are those of
``constraints-gpu.txt``.
"""
MOST_SECONDS = 540
"""Maximum duration of a part in seconds, so that every part fits into a command of ten minutes."""
UPDATES = {"Qwen/Qwen3-0.6B": 180, "Qwen/Qwen3-4B": 420}
"""The models whose updates are measured. The number is the maximum duration in seconds of one part, which
measures one model with one layout and one kind of settings.
"""


@dataclass(frozen=True)
class Target:
    """Where the parts run. ``device``: ``cuda``, or ``cpu`` for a trial with tiny sizes."""

    device: str
    folder: Path
    """The folder of results."""

    @property
    def small(self) -> bool:
        """Whether sizes are tiny, because there is no GPU."""
        return self.device == "cpu"

    @property
    def kernels(self) -> gpu_check.Machine:
        """The device and the sizes for the checks of kernels."""
        if self.small:
            return gpu_check.Machine(torch.device("cpu"), 256, 16, 1, ON_CPU)
        return gpu_check.Machine(torch.device("cuda"))


Found = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """One part. ``run`` returns its results. The entry ``ok`` says whether the part has passed."""

    name: str
    seconds: int
    """Maximum duration in seconds. After this time the part is ended."""
    run: Callable[[Target], Found]


def standing(here: str | None, oldest: str, locked: str | None) -> str:
    """Return a word for the installed version ``here``, compared with the version ``locked`` of the lock
    file.

    - ``missing``: the package is not installed.
    - ``too old``: the installed version is older than ``oldest``.
    - ``not locked``: the lock file does not have the package.
    - ``locked``: both versions are equal.
    - ``older``, ``newer``: the installed version is older or newer than the locked one.
    """
    if here is None:
        return "missing"
    own = Version(Version(here).public)
    if own < Version(oldest):
        return "too old"
    if locked is None or own == Version(locked):
        return "locked" if locked else "not locked"
    return "older" if own < Version(locked) else "newer"


def locked_versions(text: str) -> dict[str, str]:
    """Return the versions that a lock file pins, by package."""
    return dict(re.findall(r"^([a-z0-9-]+)==([^ \\]+)", text, re.MULTILINE))


def versions(target: Target) -> Found:
    """Find the GPU and the packages' versions. Fail without a GPU, or if a package is missing or too old."""
    locked = locked_versions((ROOT / "constraints-gpu.txt").read_text(encoding="utf-8"))
    packages: dict[str, dict[str, str | None]] = {}
    for name, oldest in OLDEST.items():
        here = _version(name)
        packages[name] = {
            "here": here, "locked": locked.get(name), "oldest": oldest,
            "is": standing(here, oldest, locked.get(name)),
        }  # fmt: skip
    found: Found = {"ok": True, "packages": packages, "cuda": torch.version.cuda}
    if target.small:
        return found
    if not torch.cuda.is_available():
        return found | {"ok": False, "error": "torch finds no GPU here"}
    kernel = attention.sequences_kernel()
    found |= {
        "gpu": torch.cuda.get_device_name(0),
        "capability": list(torch.cuda.get_device_capability(0)),
        "mebibytes": torch.cuda.mem_get_info()[1] >> 20,
        "sequences": getattr(kernel, "__qualname__", None),
    }
    return found | {"ok": all(one["is"] not in ("missing", "too old") for one in packages.values())}


def _version(name: str) -> str | None:
    for known in (name, f"{name}-cpu"):
        try:
            return version(known)
        except PackageNotFoundError:
            continue
    return None


def arithmetic(target: Target) -> Found:
    """Train the arithmetic example.

    The part passes if the reward rises, every update reaches the sampler, and sampler and trainer agree. On a
    CPU, a tiny model with random weights makes two steps, and its reward may stay equal or fall.
    """
    folder = target.folder / "arithmetic"
    model, steps = (update.TINY, 2) if target.small else (None, None)
    peak = runs.train(
        runs.manifest(target.folder / "arithmetic.yaml", target.device, model, steps), folder, target.device
    )
    found = runs.learned(runs.steps_of(folder)) | {"memory": runs.memory_of(folder, peak)}
    return {"ok": found["applied"] and found["agrees"] and (found["rises"] or target.small), **found}


def planner(target: Target) -> Found:
    """Train a 4B model with random weights for two steps. Compare its planned memory with the
    measured peak.
    """
    folder = target.folder / "planner"
    model = update.TINY if target.small else "Qwen/Qwen3-4B"
    peak = runs.train(
        runs.manifest(target.folder / "planner.yaml", target.device, model, 2), folder, target.device
    )
    found = runs.memory_of(folder, peak)
    return {"ok": target.small or all(found["fits"].values()), **found}


def one_update(model: str, layout: str, settings: str) -> Callable[[Target], Found]:
    """Return a function that measures an update of ``model`` with this layout and these settings."""

    def run(target: Target) -> Found:
        torch.set_num_threads(machine.usable_cores())
        accelerator = None if target.small else update.accelerator_here()
        case = update.Case(model, 512 if target.small else 16_384, 16, layout, settings)
        folder = update.random_model(model, target.folder / "models", target.device)
        made = update.measure(case, folder, accelerator, 1 if target.small else 3)
        fits = made.held is None or made.planned is None or made.held <= made.planned
        return {"ok": fits, "outcome": asdict(made)}

    return run


def parts(target: Target) -> Iterator[Part]:
    """Yield the parts in the order in which they are run."""
    yield Part("versions", 120, versions)
    for name, check in gpu_check.CHECKS:

        def kernels(target: Target, check: gpu_check.Check = check) -> Found:
            return check(target.kernels)

        yield Part(f"kernels: {name}", 180, kernels)
    whole_run = 240 if target.small else MOST_SECONDS
    yield Part("arithmetic", whole_run, arithmetic)
    for model, seconds in ({update.TINY: 120} if target.small else UPDATES).items():
        for layout in update.LAYOUTS:
            for settings in update.SETTINGS:
                name = f"update: {model.rpartition('/')[2]} {layout} {settings}"
                yield Part(name, seconds, one_update(model, layout, settings))
    yield Part("planner", whole_run, planner)
