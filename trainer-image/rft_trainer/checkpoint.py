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
from rft_run.folder import RunFolder, adapter_of, state_of, tensors_of
from rft_run.state import RunState
from rft_trainer import files
from rft_trainer.learn.policy import Policy


class Fence:
    """Ownership of the run's folder: only the attempt that started last may write there."""

    def __init__(self, folder: RunFolder) -> None:
        """Take the folder over; earlier attempts may not write any more. Raises VolumeError."""
        self._file = folder.attempt
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

    def __init__(self, folder: RunFolder, keep: int, fence: Fence) -> None:
        """``keep``: how many of the newest checkpoints stay, besides the best one."""
        self._folder = folder
        self._keep = keep
        self._fence = fence
        atomic.remove_leftovers(folder.checkpoints)

    def save(self, state: RunState, policy: Policy, optimizer: torch.optim.Optimizer, schedule: Any) -> Path:
        """Write or update the checkpoint of ``state.step``. Raises Fenced, VolumeError."""
        self._fence.check()
        target = self._folder.checkpoint_of(state.step)
        if target.exists():
            # The tensors of one step never change; only an evaluation after it can change the state.
            files.write_json(state_of(target), state.to_json())
            self.prune(state.best_step)
            return target
        with files.new_folder(target, self._fence.check) as unfinished:
            policy.save_adapter(adapter_of(unfinished))
            torch.save(
                {
                    "adapter": policy.adapter_state(),
                    "optimizer": optimizer.state_dict(),
                    "schedule": schedule.state_dict(),
                    "torch_rng": torch.get_rng_state(),
                    "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
                    "python_rng": random.getstate(),
                },
                tensors_of(unfinished),
            )
            state_of(unfinished).write_text(json.dumps(state.to_json()), encoding="utf-8")
        self.prune(state.best_step)
        return target

    def prune(self, best_step: int) -> None:
        """Remove old checkpoints; keep the newest ones, and the best one by held-out reward."""
        for step in self._folder.steps_with_checkpoint()[: -self._keep]:
            if step != best_step:
                shutil.rmtree(self._folder.checkpoint_of(step), ignore_errors=True)

    def load_latest(self, policy: Policy, optimizer: torch.optim.Optimizer, schedule: Any) -> RunState | None:
        """Restore policy, optimizer and schedule from the newest checkpoint and return its state, or None."""
        steps = self._folder.steps_with_checkpoint()
        if not steps:
            return None
        folder = self._folder.checkpoint_of(steps[-1])
        state = RunState.from_json(json.loads(state_of(folder).read_text(encoding="utf-8")))
        # Not weights_only, because the state of Python's random generator, a tuple, needs pickle. The file is
        # trusted: only the trainer writes to the run's volume.
        saved = torch.load(tensors_of(folder), map_location="cpu", weights_only=False)
        policy.load_adapter_state(saved["adapter"])
        optimizer.load_state_dict(saved["optimizer"])
        schedule.load_state_dict(saved["schedule"])
        torch.set_rng_state(saved["torch_rng"])
        if saved["cuda_rng"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(saved["cuda_rng"])
        random.setstate(saved["python_rng"])
        return state
