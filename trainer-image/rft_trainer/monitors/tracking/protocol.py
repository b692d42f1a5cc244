"""The protocol of tracking backends, and the data of a run that they get at its start."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

CURVES = ("step", "evaluation")
"""Kinds of rows: steps and held-out evaluations. The highest logged step is kept per kind."""


@dataclass(frozen=True)
class RunInfo:
    """The tracked run. ``uid`` is the RFTJob's UID. A backend finds the run of a resumed job by it."""

    name: str
    namespace: str
    uid: str
    folder: str
    resumed_from: int
    attempt: int
    trainer_pid: int
    target: Mapping[str, Any] = field(default_factory=dict)
    """The backend's part of ``spec.tracking``."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """All hyperparameters, as ``flat.hyperparameters`` gives them."""


@dataclass(frozen=True)
class End:
    """How an attempt ended. ``adapter`` is the final adapter's folder; empty when there is none."""

    exit_code: int
    reason: str
    adapter: str = ""


class Tracker(Protocol):
    """One backend. Its methods may raise anything: the worker logs and counts it, and the run goes on."""

    def start(self, run: RunInfo) -> None:
        """Create the run, or reopen the one of an earlier attempt."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Log one step."""

    def evaluation(self, step: int, numbers: Mapping[str, float]) -> None:
        """Log one held-out evaluation; step 0 is the starting policy."""

    def finish(self, end: End, numbers: Mapping[str, float]) -> None:
        """Close the run with its final numbers, and upload the adapter as an artifact."""
