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
    """Writes events with TensorBoard's protocol buffers, without importing torch or tensorflow."""

    def start(self, run: RunInfo) -> None:
        """Open a new event file.

        The attempt repeats the steps after the checkpoint. TensorBoard ignores the older events of these
        steps.
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
        """Log a step. Steps up to the checkpoint are skipped: the files of earlier attempts have them."""
        if step > self._resumed_from:
            self._scalars(step, numbers)

    def _scalars(self, step: int, numbers: Mapping[str, float]) -> None:
        for tag, value in numbers.items():
            self._add(step, summary=self._scalar.scalar_pb(tag, value))
        self._writer.flush()

    def evaluation(self, step: int, numbers: Mapping[str, float]) -> None:
        """Log the scores of a held-out evaluation."""
        self._scalars(step, numbers)

    def finish(self, end: End, numbers: Mapping[str, float]) -> None:  # noqa: ARG002 - files have no status
        """Log the final numbers of the run, and close the event file."""
        self._scalars(int(numbers.get("final/step", 0)), numbers)
        self._writer.close()

    def _add(self, step: int, **fields: Any) -> None:
        self._writer.add_event(self._event.Event(wall_time=time.time(), step=step, **fields))
