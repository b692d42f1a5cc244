"""Defines the names of all files and folders in the folder of a training run."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rft_run.config import CONFIG_FILE

ADAPTER = "adapter"
"""The name of a subfolder with a LoRA adapter in PEFT's format.

In a run's folder, this is the final adapter. In a checkpoint's folder, it is the adapter after the
checkpoint's step."""

ROLLOUTS_SUFFIX = ".jsonl.zst"
"""The end of the name of each file with rollouts."""

_STEP = re.compile(r"step-([0-9]{6,})")


@dataclass(frozen=True)
class RunFolder:
    """The folder of a training run. Its properties are the paths of the files and folders in it.

    ``path`` is the folder itself. None of the paths needs to exist.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The file with the configuration of the trainer (``RunConfig``)."""
        return self.path / CONFIG_FILE

    @property
    def inputs(self) -> Path:
        """The folder for datasets and grader code that a manifest has in ConfigMaps. ``rft run`` writes them
        here.
        """
        return self.path / "inputs"

    @property
    def digests(self) -> Path:
        """The file with digests of the datasets and of the graders' code. When ``rft run`` resumes the run,
        it compares them to find changed inputs.
        """
        return self.path / "inputs.json"

    @property
    def lock(self) -> Path:
        """The lock file. ``rft run`` and ``rft download`` lock it while they write into the folder."""
        return self.path / ".rft.lock"

    @property
    def log(self) -> Path:
        """The file into which ``rft run`` writes the standard error of the trainer."""
        return self.path / "trainer.log"

    @property
    def attempt(self) -> Path:
        """The file with the number and the id of the newest attempt. Each start of the trainer is an attempt.

        An older attempt that still runs finds the newer one here (``Fence``), and stops writing.
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
        """The file with the metrics of the training steps, one JSON line for each step (``StepRecord``)."""
        return self.path / "metrics.jsonl"

    @property
    def curve(self) -> Path:
        """The PNG file with a picture of the reward curve."""
        return self.path / "reward.png"

    @property
    def preflight(self) -> Path:
        """The file with the findings of the preflight: the checks that run before the first training step."""
        return self.path / "preflight.json"

    @property
    def fingerprint(self) -> Path:
        """The file with the digests of the inputs at the start of the run (``Fingerprint``)."""
        return self.path / "fingerprint.json"

    def line_digests_of(self, field: str) -> Path:
        """Return the path of the file with one digest for each line of a dataset.

        ``field`` is the field of the manifest that names the dataset, such as ``spec.dataset``.
        """
        return self.path / "fingerprint" / f"{field}.lines"

    @property
    def rendering(self) -> Path:
        """The file that fixes how the chat template renders prompts in all attempts of the run: the date in
        the prompts, and the rules of the release that began the run (``Rendering``).
        """
        return self.path / "rendering.json"

    @property
    def data(self) -> Path:
        """The folder of downloaded or unpacked datasets. The trainer deletes it when the run is complete."""
        return self.path / "data"

    @property
    def adapter(self) -> Path:
        """The folder of the final adapter."""
        return self.path / ADAPTER

    @property
    def adapters(self) -> Path:
        """The folder of the adapters that the sampler loads during training, with a subfolder for each
        version.
        """
        return self.path / "adapters"

    @property
    def rollouts(self) -> Path:
        """The folder of all rollouts, with a file for each step."""
        return self.path / "rollouts"

    def rollouts_of(self, step: int) -> Path:
        """Return the path of the compressed file with the rollouts of a step (``RolloutRecord``)."""
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
    """Return the part of a file name that stands for a step, such as ``step-000042``."""
    return f"step-{step:06d}"


def state_of(checkpoint: Path) -> Path:
    """Return the path of the file with the state of the run (``RunState``) in a checkpoint's folder."""
    return checkpoint / "state.json"


def tensors_of(checkpoint: Path) -> Path:
    """Return the path of the file with the adapter's weights and the optimizer's state in a checkpoint's
    folder.
    """
    return checkpoint / "training.safetensors"


def values_of(checkpoint: Path) -> Path:
    """Return the path of the file with the optimizer's settings, the learning rate schedule and the states of
    the random generators in a checkpoint's folder.
    """
    return checkpoint / "training.json"


def pickle_of(checkpoint: Path) -> Path:
    """Return the path of the file that older releases wrote into a checkpoint's folder with torch.save.

    Newer releases write the same content into two files, see ``tensors_of`` and ``values_of``.
    """
    return checkpoint / "training.pt"


def adapter_of(checkpoint: Path) -> Path:
    """Return the path of the adapter's folder in a checkpoint's folder."""
    return checkpoint / ADAPTER


def adapter_config_of(adapter: Path) -> Path:
    """Return the path of PEFT's configuration file in an adapter's folder."""
    return adapter / "adapter_config.json"


def adapter_weights_of(adapter: Path) -> Path:
    """Return the path of the file with the weights in an adapter's folder."""
    return adapter / "adapter_model.safetensors"


def card_of(adapter: Path) -> Path:
    """Return the path of the model card in the folder of an adapter or a model."""
    return adapter / "README.md"


def steps_of(names: Iterable[str], suffix: str) -> list[int]:
    """Return the step numbers in names of the form ``step-000042`` with ``suffix`` after it, in ascending
    order. Names of another form are ignored.
    """
    found = (_STEP.fullmatch(name.removesuffix(suffix)) for name in names if name.endswith(suffix))
    return sorted(int(match[1]) for match in found if match is not None)


def _steps_in(folder: Path, suffix: str) -> list[int]:
    return steps_of((path.name for path in folder.glob(f"step-*{suffix}")), suffix)
