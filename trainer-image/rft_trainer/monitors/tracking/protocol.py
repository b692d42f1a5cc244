"""The interface of tracking backends, such as MLflow, and the data that a backend gets from the trainer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

CURVES = ("step", "evaluation")
"""The two kinds of data that are logged: training steps and held-out evaluations. A tracker remembers the
highest logged step of each kind, so that no data is logged twice."""


@dataclass(frozen=True)
class RunInfo:
    """The training run whose metrics a tracking backend logs.

    - ``name``, ``namespace``, ``uid``: those of the RFTJob. After a resume, the backend finds its own run by
      the UID.
    - ``folder``: path of the run's folder.
    - ``resumed_from``: step of the checkpoint from which this attempt starts. 0: there is no checkpoint.
    - ``attempt``: number of the attempt, which is a start of the trainer for the run.
    - ``trainer_pid``: PID of the trainer.
    """

    name: str
    namespace: str
    uid: str
    folder: str
    resumed_from: int
    attempt: int
    trainer_pid: int
    target: Mapping[str, Any] = field(default_factory=dict)
    """The settings of the backend in ``spec.tracking``."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """All hyperparameters of the run, as ``flat.hyperparameters`` returns them."""


@dataclass(frozen=True)
class End:
    """How an attempt (one start of the trainer) ended. ``adapter``: the final adapter's folder; "": none."""

    exit_code: int
    reason: str
    adapter: str = ""


class Tracker(Protocol):
    """The interface of a tracking backend. Its methods may raise any error: this is logged, not fatal."""

    def start(self, run: RunInfo) -> None:
        """Create a run in the backend for ``run``, or reopen the one that an earlier attempt created."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Log the metrics ``numbers`` of one training step, by names such as ``graders/correct``."""

    def evaluation(self, step: int, numbers: Mapping[str, float]) -> None:
        """Log the scores ``numbers`` of the held-out evaluation after ``step``. 0: the starting policy."""

    def finish(self, end: End, numbers: Mapping[str, float]) -> None:
        """Log the final numbers, upload the adapter if ``spec.tracking`` asks for it, and close the run."""
