"""What a backend does for a run, and what it is told at the start."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

CURVES = ("step", "evaluation")
"""Optimizer steps and held-out evaluations: each is logged once a step, and has a highest step of its own."""


@dataclass(frozen=True)
class RunInfo:
    """Which run is tracked. ``uid`` is the RFTJob's: the run of a resumed job is found again by it."""

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
    """One backend. Any exception may leave any method: the worker counts and logs it, the run goes on."""

    def start(self, run: RunInfo) -> None:
        """Open the run, or the one that an earlier attempt opened."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Add one optimizer step."""

    def evaluation(self, step: int, numbers: Mapping[str, float]) -> None:
        """Add one held-out evaluation; step 0 is the starting policy."""

    def finish(self, end: End, numbers: Mapping[str, float]) -> None:
        """Close the run with its final numbers, and keep the adapter as an artifact."""
