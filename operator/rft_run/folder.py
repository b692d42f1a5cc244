"""Defines the paths of all files and folders in a run's folder."""

import re
from dataclasses import dataclass
from pathlib import Path

from rft_run.config import CONFIG_FILE

ADAPTER = "adapter"
"""Name of a folder with a LoRA adapter in PEFT's format.

In a run's folder it has the final adapter. In a checkpoint's folder it has the adapter of that step."""

_STEP = re.compile(r"step-([0-9]{6,})")


@dataclass(frozen=True)
class RunFolder:
    """Paths in a run's folder. They need not exist."""

    path: Path

    @property
    def config(self) -> Path:
        """The configuration of the trainer (``RunConfig``)."""
        return self.path / CONFIG_FILE

    @property
    def inputs(self) -> Path:
        """Folder of rows and grader code that a manifest for ``rft run`` has inline."""
        return self.path / "inputs"

    @property
    def digests(self) -> Path:
        """Digests of the inputs. A resumed ``rft run`` compares them to find changed inputs."""
        return self.path / "inputs.json"

    @property
    def lock(self) -> Path:
        """Lock file. It is locked while ``rft run`` uses the folder."""
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
        """File with one line for each step (``StepRecord``)."""
        return self.path / "metrics.jsonl"

    @property
    def curve(self) -> Path:
        """The reward curve as a picture."""
        return self.path / "reward.png"

    @property
    def preflight(self) -> Path:
        """The findings of the preflight, which runs before the first step."""
        return self.path / "preflight.json"

    @property
    def fingerprint(self) -> Path:
        """The fingerprint of the inputs at the start of the run (``Fingerprint``)."""
        return self.path / "fingerprint.json"

    def line_digests_of(self, field: str) -> Path:
        """Digests of the lines of a dataset. ``field``: its field in the manifest."""
        return self.path / "fingerprint" / f"{field}.lines"

    @property
    def rendering(self) -> Path:
        """The date and the rules with which the run's prompts are rendered (``Rendering``)."""
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
        """The folder of the rollouts, with a file for each step."""
        return self.path / "rollouts"

    def rollouts_of(self, step: int) -> Path:
        """The file with the rollouts of a step (``RolloutRecord``)."""
        return self.rollouts / f"{step_name(step)}.jsonl.zst"

    @property
    def evaluations(self) -> Path:
        """The folder of the held-out evaluations, with a file for each."""
        return self.path / "evaluation"

    def evaluation_of(self, step: int) -> Path:
        """The held-out evaluation after a step. Step 0: the evaluation of the starting policy."""
        return self.evaluations / f"{step_name(step)}.json"

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints, with a folder for each."""
        return self.path / "checkpoints"

    def checkpoint_of(self, step: int) -> Path:
        """The folder of the checkpoint after a step."""
        return self.checkpoints / step_name(step)

    def steps_with_rollouts(self) -> list[int]:
        """Return the steps that have a file of rollouts, in order."""
        return _steps_in(self.rollouts, ".jsonl.zst")

    def evaluated_steps(self) -> list[int]:
        """Return the steps with an evaluation, in order. Step 0: the evaluation of the starting policy."""
        return _steps_in(self.evaluations, ".json")

    def steps_with_checkpoint(self) -> list[int]:
        """Return the steps that have a complete checkpoint, in order."""
        return _steps_in(self.checkpoints, "")


def step_name(step: int) -> str:
    """Return the name of a step for file names, such as ``step-000042``."""
    return f"step-{step:06d}"


def state_of(checkpoint: Path) -> Path:
    """Return the path of the run's state (``RunState``) in a checkpoint."""
    return checkpoint / "state.json"


def tensors_of(checkpoint: Path) -> Path:
    """Return the path of weights, optimizer, schedule and random generators in a checkpoint."""
    return checkpoint / "training.pt"


def adapter_of(checkpoint: Path) -> Path:
    """Return the path of the adapter's folder in a checkpoint."""
    return checkpoint / ADAPTER


def adapter_config_of(adapter: Path) -> Path:
    """Return the path of the configuration in an adapter's folder. It has the base model's name."""
    return adapter / "adapter_config.json"


def adapter_weights_of(adapter: Path) -> Path:
    """Return the path of the weights in an adapter's folder."""
    return adapter / "adapter_model.safetensors"


def card_of(adapter: Path) -> Path:
    """Return the path of the model card in the folder of an adapter or a model."""
    return adapter / "README.md"


def _steps_in(folder: Path, suffix: str) -> list[int]:
    names = (path.name for path in folder.glob(f"step-*{suffix}"))
    found = (_STEP.fullmatch(name.removesuffix(suffix)) for name in names)
    return sorted(int(match[1]) for match in found if match is not None)
