"""The interface of tracking backends, and the data that a backend gets at the start of a run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

CURVES = ("step", "evaluation")
"""The kinds of rows that are logged: steps and held-out evaluations. A tracker keeps the highest logged step
of each kind, so that no row is logged twice."""


@dataclass(frozen=True)
class RunInfo:
    """The run that is tracked.

    - ``uid``: the RFTJob's UID. A backend finds the run of a resumed job by the UID.
    - ``folder``: path of the run's folder.
    - ``resumed_from``: step of the checkpoint from which this attempt starts. 0: there is no checkpoint.
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
    """How an attempt ended. ``adapter`` is the folder of the final adapter, "" if there is none."""

    exit_code: int
    reason: str
    adapter: str = ""


class Tracker(Protocol):
    """The interface of a tracking backend. Methods may raise any error: the worker logs it and continues."""

    def start(self, run: RunInfo) -> None:
        """Create the run in the backend, or reopen the run that an earlier attempt created."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Log the numbers of one training step."""

    def evaluation(self, step: int, numbers: Mapping[str, float]) -> None:
        """Log the scores of one held-out evaluation. Step 0 is the evaluation of the starting policy."""

    def finish(self, end: End, numbers: Mapping[str, float]) -> None:
        """Close the run in the backend with its final numbers, and upload the adapter as an artifact."""
