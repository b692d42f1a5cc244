"""Writes TensorBoard event files into the subfolder ``tensorboard/`` of the run's folder."""

import importlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rft_trainer.monitors.tracking.flat import texts
from rft_trainer.monitors.tracking.protocol import End, RunInfo

FOLDER = "tensorboard"


class TensorboardTracker:
    """The tracking backend for TensorBoard: writes event files, without importing torch or tensorflow."""

    def start(self, run: RunInfo) -> None:
        """Open a new event file for this attempt, and write the hyperparameters of the run into it.

        The attempt repeats the steps after its checkpoint. Events of these steps in older files are ignored
        by TensorBoard.
        """
        files = importlib.import_module("tensorboard.summary.writer.event_file_writer")
        self._event: Any = importlib.import_module("tensorboard.compat.proto.event_pb2")
        self._scalar: Any = importlib.import_module("tensorboard.plugins.scalar.summary_v2")
        text: Any = importlib.import_module("tensorboard.plugins.text.summary_v2")
        hparams: Any = importlib.import_module("tensorboard.plugins.hparams.summary_v2")
        self._resumed_from = run.resumed_from
        self._writer: Any = files.EventFileWriter(str(Path(run.folder) / FOLDER))
        # A session log with START makes TensorBoard discard the events of older files from this step on.
        session = self._event.SessionLog(status=self._event.SessionLog.START)
        self._add(run.resumed_from + 1, session_log=session)
        self._add(0, summary=hparams.hparams_pb(texts(run.parameters), trial_id=run.uid))
        shown = json.dumps(run.parameters, indent=2, ensure_ascii=False)
        self._add(0, summary=text.text_pb("parameters", f"```json\n{shown}\n```"))
        self._writer.flush()

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write the metrics ``numbers`` of a training step.

        Steps up to the checkpoint are skipped, because the event files of earlier attempts have them.
        """
        if step > self._resumed_from:
            self._scalars(step, numbers)

    def _scalars(self, step: int, numbers: Mapping[str, float]) -> None:
        for tag, value in numbers.items():
            self._add(step, summary=self._scalar.scalar_pb(tag, value))
        self._writer.flush()

    def evaluation(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write the scores ``numbers`` of the held-out evaluation after ``step``."""
        self._scalars(step, numbers)

    def finish(self, end: End, numbers: Mapping[str, float]) -> None:  # noqa: ARG002 - files have no status
        """Write the final numbers of the run, and close the event file. No adapter is uploaded."""
        self._scalars(int(numbers.get("final/step", 0)), numbers)
        self._writer.close()

    def _add(self, step: int, **fields: Any) -> None:
        self._writer.add_event(self._event.Event(wall_time=time.time(), step=step, **fields))
