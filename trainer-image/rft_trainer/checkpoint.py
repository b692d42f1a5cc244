"""Writes, restores and removes the checkpoints of a run.

An attempt is one start of the trainer for a run. A ``Fence`` stops an old attempt from writing to the run's
folder once a newer attempt has started.
"""

import json
import logging
import random
import shutil
import uuid
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from rft_run import atomic, run_files
from rft_run.checkpoint import checkpoint_problem, read_state
from rft_run.errors import Fenced, NoCheckpointReadable, VolumeError, first_line
from rft_run.folder import RunFolder, adapter_of, state_of
from rft_run.state import RunState
from rft_trainer import files, training_state
from rft_trainer.learn.policy import Policy
from rft_trainer.training_state import TrainingState

log = logging.getLogger(__name__)


class Fence:
    """The write permission of one attempt (one start of the trainer) for the run's folder.

    The newest attempt has the permission. ``check`` raises an error in older attempts that still run.
    """

    def __init__(self, folder: RunFolder) -> None:
        """Make this attempt the owner of the run's folder, so that earlier attempts may no longer write.

        The file ``attempt.json`` gets the number and the id of this attempt. Raises VolumeError if the file
        cannot be written.
        """
        self._file = folder.attempt
        self._id = uuid.uuid4().hex
        try:
            before = run_files.json_of(self._file)["number"]
        except (OSError, ValueError, KeyError, TypeError):
            before = 0
        self.number = before + 1 if isinstance(before, int) and 0 <= before < run_files.MOST else 1
        files.write_json(self._file, {"number": self.number, "id": self._id})

    def check(self) -> None:
        """Raise Fenced if a newer attempt owns the run's folder now.

        Raises VolumeError if the file with the id of the owner cannot be read.
        """
        try:
            current = run_files.json_of(self._file)
            number, owner = current["number"], current["id"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise VolumeError(f"{self._file}: {error}") from error
        if owner != self._id:
            raise Fenced(f"attempt {number} replaced attempt {self.number}: only the newest may write")


class Checkpoints:
    """The checkpoints of a run. Each checkpoint is a folder with a name such as ``step-000042``."""

    def __init__(self, folder: RunFolder, keep: int, fence: Fence) -> None:
        """Remove unfinished checkpoints that a killed attempt left.

        ``keep``: how many of the newest checkpoints ``save`` keeps. The checkpoint with the highest held-out
        reward is kept too.
        """
        self._folder = folder
        self._keep = keep
        self._fence = fence
        atomic.remove_leftovers(folder.checkpoints)

    def save(
        self,
        state: RunState,
        policy: Policy,
        optimizer: torch.optim.Optimizer,
        schedule: Any,
        also: Collection[int] = (),
    ) -> Path:
        """Write the checkpoint of the step ``state.step``, and remove old checkpoints. Return the new folder.

        If the checkpoint exists already, only its file ``state.json`` is written again. ``also``: steps whose
        checkpoints are kept, even if they are old. Raises VolumeError if the folder cannot be written, and
        Fenced if a newer attempt has replaced this one.
        """
        self._fence.check()
        target = self._folder.checkpoint_of(state.step)
        if target.exists():
            # The tensors of a step never change. Only an evaluation after the step can change the state file.
            files.write_json(state_of(target), state.to_json())
            self.prune(state.best_step, also)
            return target
        with files.new_folder(target, self._fence.check) as unfinished:
            policy.save_adapter(adapter_of(unfinished))
            training_state.write(
                unfinished,
                TrainingState(
                    adapter=policy.adapter_state(),
                    optimizer=optimizer.state_dict(),
                    schedule=schedule.state_dict(),
                    torch_rng=torch.get_rng_state(),
                    cuda_rng=torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
                    python_rng=random.getstate(),
                ),
            )
            state_of(unfinished).write_text(json.dumps(state.to_json()), encoding="utf-8")
        self.prune(state.best_step, also)
        return target

    def prune(self, best_step: int, also: Collection[int] = ()) -> None:
        """Remove all checkpoints except these:

        - the newest ones, as many as the constructor's argument ``keep``
        - the checkpoint of ``best_step``, the step with the highest held-out reward
        - the checkpoints of the steps in ``also``
        """
        for step in self._folder.steps_with_checkpoint()[: -self._keep]:
            if step != best_step and step not in also:
                shutil.rmtree(self._folder.checkpoint_of(step), ignore_errors=True)

    def load_latest(self, policy: Policy, optimizer: torch.optim.Optimizer, schedule: Any) -> RunState | None:
        """Restore policy, optimizer and schedule from the newest checkpoint that can be read.

        Returns the run's state from this checkpoint, or None if there are no checkpoints. A newer checkpoint
        that cannot be read is logged and renamed, so that a new checkpoint can be written for its step.

        Raises:
            NoCheckpointReadable: there are checkpoints, but none can be read.
            ModelError: the checkpoint does not fit the model.
            VolumeError: the disk reports an error. A retry may succeed.
            Fenced: a newer attempt has replaced this one. This is checked only before a rename.
        """
        unreadable: dict[int, str] = {}
        for step in reversed(self._folder.steps_with_checkpoint()):
            try:
                state = self._load(step, policy, optimizer, schedule)
            except _Unreadable as error:
                log.warning("the checkpoint of step %d cannot be read: %s", step, error)
                unreadable[step] = str(error)
                continue
            if unreadable:
                self._set_aside(unreadable)
                log.warning("the run continues from the checkpoint of step %d", step)
            return state
        if unreadable:
            said = "; ".join(f"step {step}: {problem}" for step, problem in unreadable.items())
            raise NoCheckpointReadable(
                f"none of the checkpoints in {self._folder.checkpoints} can be read ({said}): restore them"
                " from a backup, or remove this folder to start the run again from step 1"
            )
        return None

    def load(self, step: int, policy: Policy, optimizer: torch.optim.Optimizer, schedule: Any) -> RunState:
        """Restore policy, optimizer and schedule from the checkpoint of ``step``. Return the run's state.

        Raises NoCheckpointReadable if the checkpoint cannot be read, VolumeError if the disk reports an
        error, and ModelError if the checkpoint does not fit the model.
        """
        try:
            return self._load(step, policy, optimizer, schedule)
        except _Unreadable as error:
            raise NoCheckpointReadable(f"the checkpoint of step {step} cannot be read: {error}") from error

    def _load(self, step: int, policy: Policy, optimizer: torch.optim.Optimizer, schedule: Any) -> RunState:
        """Restore policy, optimizer, schedule and random generators from the checkpoint of ``step``.

        Return the run's state. Raises _Unreadable if the checkpoint cannot be read, VolumeError if the disk
        reports an error, and ModelError if the checkpoint does not fit the model.
        """
        folder = self._folder.checkpoint_of(step)
        try:
            if problem := checkpoint_problem(self._folder, step):
                raise _Unreadable(problem)
            state = read_state(folder)
            saved = training_state.read(folder)
        except training_state.NotRead as error:
            raise _Unreadable(str(error)) from error
        except OSError as error:  # an error of the disk: a retry may succeed
            raise VolumeError(f"{folder}: {error}") from error
        except ValueError as error:
            raise _Unreadable(f"{state_of(folder)}: {first_line(error)}") from error
        if missing := policy.adapter_state().keys() - saved.adapter.keys():
            raise _Unreadable(f"{folder}: lacks {len(missing)} weights of the adapter, e.g. {min(missing)}")
        policy.load_adapter_state(saved.adapter)
        try:
            _refuse_other_shapes(optimizer, saved.optimizer)
            optimizer.load_state_dict(saved.optimizer)
            schedule.load_state_dict(saved.schedule)
            torch.set_rng_state(saved.torch_rng)
            if saved.cuda_rng and torch.cuda.is_available():
                torch.cuda.set_rng_state_all(saved.cuda_rng)
            random.setstate(saved.python_rng)
        except training_state.BROKEN as error:
            raise _Unreadable(f"{folder}: its training state does not fit: {first_line(error)}") from error
        return state

    def _set_aside(self, steps: Iterable[int]) -> None:
        """Rename the unreadable checkpoints of ``steps``, for example to ``step-000042.unreadable``.

        New checkpoints can then be written for these steps. Raises VolumeError, and Fenced if a newer attempt
        has replaced this one.
        """
        self._fence.check()
        for step in steps:
            folder = self._folder.checkpoint_of(step)
            target = folder.with_name(f"{folder.name}.unreadable")
            with files.volume_errors(folder):
                if target.is_dir():
                    shutil.rmtree(target)
                atomic.move(folder, target)


class _Unreadable(Exception):
    """A checkpoint cannot be read, or does not fit the training state. The message names the file."""


def _refuse_other_shapes(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """Raise ValueError if a saved AdamW moment does not have the shape of its weight in ``optimizer``.

    Scalars are allowed. ``saved``: the saved ``state_dict``. ``load_state_dict`` of torch has no such check.
    """
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for index, moments in saved["state"].items():
        for name, moment in moments.items():
            if moment.shape not in (torch.Size(), weights[index].shape):
                raise ValueError(f"{name} of weight {index} has the shape {tuple(moment.shape)}")
