"""Defines the paths of all files and folders in a run's folder."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rft_run.config import CONFIG_FILE

ADAPTER = "adapter"
"""The name of a folder with a LoRA adapter in PEFT's format.

In a run's folder it has the final adapter. In a checkpoint's folder it has the adapter after the checkpoint's
step."""

ROLLOUTS_SUFFIX = ".jsonl.zst"
"""The end of the name of each file with rollouts."""

_STEP = re.compile(r"step-([0-9]{6,})")


@dataclass(frozen=True)
class RunFolder:
    """The paths of the files and folders in a run's folder. They need not exist."""

    path: Path

    @property
    def config(self) -> Path:
        """The file with the configuration of the trainer (``RunConfig``)."""
        return self.path / CONFIG_FILE

    @property
    def inputs(self) -> Path:
        """The folder for the files of ConfigMaps that a manifest for ``rft run`` contains."""
        return self.path / "inputs"

    @property
    def digests(self) -> Path:
        """The file with digests of the inputs. A resumed ``rft run`` compares them to find changed inputs."""
        return self.path / "inputs.json"

    @property
    def lock(self) -> Path:
        """The lock file. It is locked while ``rft run`` uses the folder."""
        return self.path / ".rft.lock"

    @property
    def log(self) -> Path:
        """The file into which ``rft run`` writes the standard error of the trainer."""
        return self.path / "trainer.log"

    @property
    def attempt(self) -> Path:
        """The file with the number and the id of the newest attempt (``Fence``).

        Each start of the trainer is an attempt.
        """
        return self.path / "attempt.json"

    @property
    def status(self) -> Path:
        """The file with the status of a local run (``RFTJobStatus``). In a cluster, the status is in the
        RFTJob.
        """
        return self.path / "status.yaml"

    @property
    def metrics(self) -> Path:
        """The file with the metrics of training, with one line for each step (``StepRecord``)."""
        return self.path / "metrics.jsonl"

    @property
    def curve(self) -> Path:
        """The file with a picture of the reward curve."""
        return self.path / "reward.png"

    @property
    def preflight(self) -> Path:
        """The file with the findings of the preflight, which runs before the first step."""
        return self.path / "preflight.json"

    @property
    def fingerprint(self) -> Path:
        """The file with the fingerprint of the inputs at the start of the run (``Fingerprint``)."""
        return self.path / "fingerprint.json"

    def line_digests_of(self, field: str) -> Path:
        """Return the path of the file with the digests of a dataset's lines. ``field`` is the field of the
        manifest that names the dataset.
        """
        return self.path / "fingerprint" / f"{field}.lines"

    @property
    def rendering(self) -> Path:
        """The file with the date and the rules that the run uses to render its prompts (``Rendering``)."""
        return self.path / "rendering.json"

    @property
    def data(self) -> Path:
        """The folder of downloaded or unpacked rows. The trainer deletes it when the run is complete."""
        return self.path / "data"

    @property
    def adapter(self) -> Path:
        """The folder of the final adapter."""
        return self.path / ADAPTER

    @property
    def adapters(self) -> Path:
        """The folder of the adapter versions that the sampler loads."""
        return self.path / "adapters"

    @property
    def rollouts(self) -> Path:
        """The folder of all rollouts, with a file for each step."""
        return self.path / "rollouts"

    def rollouts_of(self, step: int) -> Path:
        """Return the path of the file with the rollouts of a step (``RolloutRecord``)."""
        return self.rollouts / f"{step_name(step)}{ROLLOUTS_SUFFIX}"

    @property
    def evaluations(self) -> Path:
        """The folder of all held-out evaluations, with a file for each."""
        return self.path / "evaluation"

    def evaluation_of(self, step: int) -> Path:
        """Return the path of the file with the held-out evaluation after a step. The evaluation of the
        starting policy has step 0.
        """
        return self.evaluations / f"{step_name(step)}.json"

    @property
    def checkpoints(self) -> Path:
        """The folder of all checkpoints, with a subfolder for each."""
        return self.path / "checkpoints"

    def checkpoint_of(self, step: int) -> Path:
        """Return the path of the folder with the checkpoint that was saved after a step."""
        return self.checkpoints / step_name(step)

    def steps_with_rollouts(self) -> list[int]:
        """Return the steps that have a file of rollouts, in ascending order."""
        return _steps_in(self.rollouts, ROLLOUTS_SUFFIX)

    def evaluated_steps(self) -> list[int]:
        """Return the steps after which there was a held-out evaluation, in ascending order. Step 0 stands
        for the starting policy.
        """
        return _steps_in(self.evaluations, ".json")

    def steps_with_checkpoint(self) -> list[int]:
        """Return the steps that have a folder for their checkpoint, in ascending order.

        The files in these folders are not checked here. ``rft_run.checkpoint`` checks them.
        """
        return _steps_in(self.checkpoints, "")


def step_name(step: int) -> str:
    """Return the name of a step in file names, such as ``step-000042``."""
    return f"step-{step:06d}"


def state_of(checkpoint: Path) -> Path:
    """Return the path of the file with the state of the run (``RunState``) in a checkpoint's folder."""
    return checkpoint / "state.json"


def tensors_of(checkpoint: Path) -> Path:
    """Return the path of a checkpoint's file with the adapter's weights and the optimizer's state."""
    return checkpoint / "training.safetensors"


def values_of(checkpoint: Path) -> Path:
    """Return the path of a checkpoint's file with the settings of the optimizer, the schedule of the learning
    rate, and the states of the random generators.
    """
    return checkpoint / "training.json"


def pickle_of(checkpoint: Path) -> Path:
    """Return the path of the file that older releases wrote with torch.save.

    Newer releases write the content of this file into the files of ``tensors_of`` and ``values_of``.
    """
    return checkpoint / "training.pt"


def adapter_of(checkpoint: Path) -> Path:
    """Return the path of the adapter's folder in a checkpoint."""
    return checkpoint / ADAPTER


def adapter_config_of(adapter: Path) -> Path:
    """Return the path of the configuration file in an adapter's folder. The file names the base model."""
    return adapter / "adapter_config.json"


def adapter_weights_of(adapter: Path) -> Path:
    """Return the path of the file with the weights in an adapter's folder."""
    return adapter / "adapter_model.safetensors"


def card_of(adapter: Path) -> Path:
    """Return the path of the model card in the folder of an adapter or a model."""
    return adapter / "README.md"


def steps_of(names: Iterable[str], suffix: str) -> list[int]:
    """Return the steps in names such as ``step-000042``, followed by ``suffix``, in ascending order. Other
    names are ignored.
    """
    found = (_STEP.fullmatch(name.removesuffix(suffix)) for name in names if name.endswith(suffix))
    return sorted(int(match[1]) for match in found if match is not None)


def _steps_in(folder: Path, suffix: str) -> list[int]:
    return steps_of((path.name for path in folder.glob(f"step-*{suffix}")), suffix)
