"""Logs to Weights & Biases, with one W&B run per RFTJob. The id of the W&B run is the UID of the RFTJob.

The API key is in the environment variable WANDB_API_KEY.
"""

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rft_run import run_files
from rft_run.exit_codes import ExitCode
from rft_trainer import files
from rft_trainer.monitors.tracking.protocol import CURVES, End, RunInfo

FOLDER = "tracking"
"""Subfolder of the run's folder, in which W&B writes its own folder ``wandb/``.

After an offline run, ``wandb sync`` sends the folder ``wandb/`` to W&B.
"""
SENT_FILE = "wandb-sent.json"

_STEP, _EVALUATION = "step", "eval/step"
_ENVIRONMENT = {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false", "GIT_PYTHON_REFRESH": "quiet"}


class WandbTracker:
    """The tracking backend for Weights & Biases. All attempts of a job are logged into one W&B run.

    W&B's own step can only increase: data with a lower step is dropped. So the training step is logged as
    another field, and this field is the x-axis of all charts.
    """

    def start(self, run: RunInfo) -> None:
        """Create the job's W&B run, or resume it. Its config gets all hyperparameters of the training run."""
        folder = (Path(run.folder) / FOLDER).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        # The library reads ``wandb/settings`` in the working folder. In the folder of somebody else's
        # manifest this file could make the library send the API key to another server.
        os.chdir(folder)
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        self._library: Any = importlib.import_module("wandb")
        self._name = run.name
        self._uploads = run.target["uploadAdapter"]
        settings = {
            "console": "off",
            "disable_git": True,
            "disable_code": True,
            "save_code": False,
            "x_stats_pid": run.trainer_pid,
            **({"base_url": run.target["baseUrl"]} if "baseUrl" in run.target else {}),
        }
        try:
            self._run: Any = self._library.init(
                project=run.target["project"],
                entity=run.target.get("entity"),
                id=run.uid,
                name=run.name,
                group=run.namespace,
                resume="allow",
                allow_val_change=True,
                config=dict(run.parameters),
                dir=str(folder),
                settings=self._library.Settings(**settings),
            )
        except Exception:
            # Otherwise W&B's local service would treat the next try as a second run with the same id.
            self._library.teardown()
            raise
        self._run.define_metric(_STEP, hidden=True)
        self._run.define_metric("*", step_metric=_STEP)
        self._sent_file = folder / SENT_FILE
        self._sent = self._sent_before()

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Log the metrics ``numbers`` of a training step, unless an earlier attempt logged this step.

        W&B cannot remove a logged point.
        """
        self._once("step", step, {_STEP: step, **numbers})

    def evaluation(self, step: int, numbers: Mapping[str, float]) -> None:
        """Log the scores ``numbers`` of a held-out evaluation, unless an earlier attempt logged this step."""
        self._once("evaluation", step, {_STEP: step, _EVALUATION: step, **numbers})

    def finish(self, end: End, numbers: Mapping[str, float]) -> None:
        """Log the final numbers, upload the adapter if this is asked for, and close the W&B run.

        If the trainer was asked to stop, the W&B run is marked as preempted.
        """
        self._run.summary.update({**numbers, "final/reason": end.reason})
        if end.adapter and self._uploads:
            artifact = self._library.Artifact(f"{self._name}-adapter", type="model")
            artifact.add_dir(end.adapter, skip_cache=True)
            self._run.log_artifact(artifact)
        if end.exit_code == ExitCode.PREEMPTED:
            self._run.mark_preempting()
        self._run.finish(exit_code=end.exit_code)
        # Wait until W&B's local service has written everything: it is killed when the pod's container ends.
        self._library.teardown(exit_code=end.exit_code)

    def _once(self, curve: str, step: int, row: dict[str, float]) -> None:
        if step > self._sent[curve]:
            self._run.log(row)
            self._sent[curve] = step
            files.write_json(self._sent_file, self._sent)

    def _sent_before(self) -> dict[str, int]:
        """Return the highest logged step of each kind of data in ``CURVES``. -1: no step was logged.

        The steps are read from W&B, or from a file in the run's folder if W&B is offline.
        """
        if not self._run.offline:
            summary = self._run.summary
            return {curve: _step(summary.get(key)) for curve, key in zip(CURVES, _KEYS, strict=True)}
        try:
            before = run_files.json_of(self._sent_file)
        except (OSError, ValueError):
            before = {}
        return {curve: _step(before.get(curve)) for curve in CURVES}


_KEYS = (_STEP, _EVALUATION)


def _step(value: Any) -> int:
    return int(value) if isinstance(value, int | float) else -1
