"""The names of all files and folders in a run's folder. Other modules get the names from here."""

import re
from dataclasses import dataclass
from pathlib import Path

from rft_run.config import CONFIG_FILE

ADAPTER = "adapter"
"""Name of a folder with a LoRA adapter, as PEFT saves it.

In a run's folder it is the final adapter, in a checkpoint's folder the adapter of that step."""

_STEP = re.compile(r"step-([0-9]{6,})")


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run's folder; none of them needs to exist."""

    path: Path

    @property
    def config(self) -> Path:
        """The configuration of the trainer (``RunConfig``)."""
        return self.path / CONFIG_FILE

    @property
    def inputs(self) -> Path:
        """Rows and grader code that came inline with a manifest of ``rft run``."""
        return self.path / "inputs"

    @property
    def digests(self) -> Path:
        """Digests of the inputs. A resumed ``rft run`` compares them, to find an input that has changed."""
        return self.path / "inputs.json"

    @property
    def lock(self) -> Path:
        """Locked while an ``rft run`` trains into the folder."""
        return self.path / ".rft.lock"

    @property
    def log(self) -> Path:
        """Standard error of the trainer, written by ``rft run``."""
        return self.path / "trainer.log"

    @property
    def attempt(self) -> Path:
        """Number and id of the newest attempt (``Fence``)."""
        return self.path / "attempt.json"

    @property
    def status(self) -> Path:
        """The status of a run without an operator (``RFTJobStatus``)."""
        return self.path / "status.yaml"

    @property
    def metrics(self) -> Path:
        """A line for each step (``StepRecord``)."""
        return self.path / "metrics.jsonl"

    @property
    def curve(self) -> Path:
        """The reward curve as a picture."""
        return self.path / "reward.png"

    @property
    def preflight(self) -> Path:
        """The findings before the first step."""
        return self.path / "preflight.json"

    @property
    def fingerprint(self) -> Path:
        """The fingerprint of the inputs when the run began (``Fingerprint``)."""
        return self.path / "fingerprint.json"

    def line_digests_of(self, field: str) -> Path:
        """Digests of the lines of the dataset that a field of the manifest refers to."""
        return self.path / "fingerprint" / f"{field}.lines"

    @property
    def rendering(self) -> Path:
        """The date in the run's prompts, and the rules with which they are rendered."""
        return self.path / "rendering.json"

    @property
    def data(self) -> Path:
        """Folder of downloaded or unpacked rows. It is deleted when the run is complete."""
        return self.path / "data"

    @property
    def adapter(self) -> Path:
        """The final adapter."""
        return self.path / ADAPTER

    @property
    def adapters(self) -> Path:
        """The folder of the adapter versions that the sampler loads."""
        return self.path / "adapters"

    @property
    def rollouts(self) -> Path:
        """The folder of the rollouts, a file for each step."""
        return self.path / "rollouts"

    def rollouts_of(self, step: int) -> Path:
        """The rollouts of a step (``RolloutRecord``)."""
        return self.rollouts / f"{step_name(step)}.jsonl.zst"

    @property
    def evaluations(self) -> Path:
        """The folder of the held-out evaluations, a file for each."""
        return self.path / "evaluation"

    def evaluation_of(self, step: int) -> Path:
        """The held-out evaluation after a step; step 0 is the base's."""
        return self.evaluations / f"{step_name(step)}.json"

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints, a folder for each."""
        return self.path / "checkpoints"

    def checkpoint_of(self, step: int) -> Path:
        """The checkpoint after a step."""
        return self.checkpoints / step_name(step)

    def steps_with_rollouts(self) -> list[int]:
        """Return the steps that have a file of rollouts, in order."""
        return _steps_in(self.rollouts, ".jsonl.zst")

    def evaluated_steps(self) -> list[int]:
        """Return the steps after which there was an evaluation, in order; 0 is the base's."""
        return _steps_in(self.evaluations, ".json")

    def steps_with_checkpoint(self) -> list[int]:
        """Return the steps that have a complete checkpoint, in order."""
        return _steps_in(self.checkpoints, "")


def step_name(step: int) -> str:
    """Return the name of a step in names of files: ``step-000042``."""
    return f"step-{step:06d}"


def state_of(checkpoint: Path) -> Path:
    """Return the file of a checkpoint with the run's state (``RunState``)."""
    return checkpoint / "state.json"


def tensors_of(checkpoint: Path) -> Path:
    """Return the file of a checkpoint with weights, optimizer, schedule and random generators."""
    return checkpoint / "training.pt"


def adapter_of(checkpoint: Path) -> Path:
    """Return the folder of a checkpoint with its adapter."""
    return checkpoint / ADAPTER


def adapter_config_of(adapter: Path) -> Path:
    """Return the file of an adapter's folder with its configuration, which names the base model."""
    return adapter / "adapter_config.json"


def adapter_weights_of(adapter: Path) -> Path:
    """Return the file of an adapter's folder with its weights."""
    return adapter / "adapter_model.safetensors"


def card_of(adapter: Path) -> Path:
    """Return the file of an adapter's or a model's folder with its model card."""
    return adapter / "README.md"


def _steps_in(folder: Path, suffix: str) -> list[int]:
    names = (path.name for path in folder.glob(f"step-*{suffix}"))
    found = (_STEP.fullmatch(name.removesuffix(suffix)) for name in names)
    return sorted(int(match[1]) for match in found if match is not None)
