"""Checkpoints, and the fence: it stops an attempt from writing once a newer attempt has started."""

import json
import random
import shutil
import uuid
from pathlib import Path
from typing import Any

import torch

from rft_run import atomic
from rft_run.errors import Fenced, VolumeError
from rft_run.state import RunState
from rft_trainer import files
from rft_trainer.learn.policy import Policy

_STATE, _TENSORS = "state.json", "training.pt"


class Fence:
    """Ownership of the run's folder: only the attempt that started last may write there."""

    def __init__(self, run_dir: Path) -> None:
        """Take the folder over; earlier attempts may not write any more. Raises VolumeError."""
        self._file = run_dir / "attempt.json"
        self._id = uuid.uuid4().hex
        try:
            before = json.loads(self._file.read_text(encoding="utf-8"))["number"]
        except (OSError, ValueError, KeyError):
            before = 0
        self.number = int(before) + 1
        files.write_json(self._file, {"number": self.number, "id": self._id})

    def check(self) -> None:
        """Raise Fenced when a newer attempt has taken the folder over."""
        try:
            current = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise VolumeError(f"{self._file}: {error}") from error
        if current.get("id") != self._id:
            raise Fenced(f"attempt {current.get('number')} took over from attempt {self.number}")


class Checkpoints:
    """The folder of checkpoints of a run, ``step-000042`` each."""

    def __init__(self, folder: Path, keep: int, fence: Fence) -> None:
        self.folder = folder
        self._keep = keep
        self._fence = fence
        atomic.remove_leftovers(folder)

    def path(self, step: int) -> Path:
        """Return the folder of a step's checkpoint."""
        return self.folder / f"step-{step:06d}"

    def steps(self) -> list[int]:
        """Return the steps that have a complete checkpoint, oldest first."""
        return sorted(int(path.name.removeprefix("step-")) for path in self.folder.glob("step-*"))

    def save(self, state: RunState, policy: Policy, optimizer: torch.optim.Optimizer, schedule: Any) -> Path:
        """Write or update the checkpoint of ``state.step``. Raises Fenced, VolumeError."""
        self._fence.check()
        target = self.path(state.step)
        if target.exists():
            # The tensors of one step never change; only an evaluation after it can change the state.
            files.write_json(target / _STATE, state.to_json())
            self.prune(state.best_step)
            return target
        with files.new_folder(target, self._fence.check) as unfinished:
            policy.save_adapter(unfinished / "adapter")
            torch.save(
                {
                    "adapter": policy.adapter_state(),
                    "optimizer": optimizer.state_dict(),
                    "schedule": schedule.state_dict(),
                    "torch_rng": torch.get_rng_state(),
                    "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
                    "python_rng": random.getstate(),
                },
                unfinished / _TENSORS,
            )
            (unfinished / _STATE).write_text(json.dumps(state.to_json()), encoding="utf-8")
        self.prune(state.best_step)
        return target

    def prune(self, best_step: int) -> None:
        """Remove old checkpoints; keep the newest ones, and the best one by held-out reward."""
        for step in self.steps()[: -self._keep]:
            if step != best_step:
                shutil.rmtree(self.path(step), ignore_errors=True)

    def load_latest(self, policy: Policy, optimizer: torch.optim.Optimizer, schedule: Any) -> RunState | None:
        """Restore policy, optimizer and schedule from the newest checkpoint and return its state, or None."""
        steps = self.steps()
        if not steps:
            return None
        folder = self.path(steps[-1])
        state = RunState.from_json(json.loads((folder / _STATE).read_text(encoding="utf-8")))
        # Not weights_only, because the state of Python's RNG, a tuple, needs pickle. The file is trusted:
        # only
        # the trainer writes to the run's volume.
        saved = torch.load(folder / _TENSORS, map_location="cpu", weights_only=False)
        policy.load_adapter_state(saved["adapter"])
        optimizer.load_state_dict(saved["optimizer"])
        schedule.load_state_dict(saved["schedule"])
        torch.set_rng_state(saved["torch_rng"])
        if saved["cuda_rng"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(saved["cuda_rng"])
        random.setstate(saved["python_rng"])
        return state
