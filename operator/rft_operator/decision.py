"""The input and the output of a decision about an RFTJob."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from rft_api.conditions import Phase
from rft_api.job import RFTJob, RFTJobSpec
from rft_api.problems import Problem
from rft_api.status import Plan
from rft_operator.observe import Observed
from rft_planner.plan import Unplannable
from rft_run.report import ProgressReport


class ChildKind(Enum):
    """Child objects of a run, in the order in which they are created."""

    CLAIM = "claim"
    CONFIG = "config"
    CA = "ca"
    JOB = "job"


@dataclass(frozen=True)
class Note:
    """An Event to post."""

    reason: str
    message: str
    warning: bool = False


@dataclass(frozen=True)
class Decision:
    """The new status, which is written first, and the changes to child objects."""

    status: dict[str, Any]
    spec: RFTJobSpec | None = None
    plan: Plan | None = None
    ensure: tuple[ChildKind, ...] = ()
    patch_child: dict[str, Any] | None = None
    delete_child: bool = False
    remove: tuple[ChildKind, ...] = ()
    """Children to delete, because the TTL has passed."""
    notes: tuple[Note, ...] = ()
    requeue_after: float | None = None
    log_of: str | None = None
    """Name of a pod whose last log lines the message needs. The caller reads these lines, and makes the
    decision again."""

    @property
    def acts(self) -> bool:
        """Return whether child objects change, and not only the status."""
        return bool(self.ensure or self.remove or self.delete_child or self.patch_child)


@dataclass(frozen=True)
class Verdict:
    """The decision of a stage."""

    phase: Phase
    reason: str
    message: str
    ended: bool = False
    stalled: bool = False
    ensure: tuple[ChildKind, ...] = ()
    patch_child: dict[str, Any] | None = None
    delete_child: bool = False
    requeue_after: float | None = None
    log_of: str | None = None


@dataclass(frozen=True)
class Facts:
    """The input of the stages."""

    document: Mapping[str, Any]
    observed: Observed
    now: datetime
    job: RFTJob | None
    problems: tuple[Problem, ...]
    spec: RFTJobSpec | None
    """The spec that the run uses: the snapshot's if there is one, else the RFTJob's."""
    renews: bool
    """Whether to replace the snapshot, because a field changed whose new value a resumed run uses."""
    plan: Plan | None
    unplannable: Unplannable | None
    report: ProgressReport | None
    no_progress_seconds: float

    @property
    def status(self) -> Mapping[str, Any]:
        """The current status."""
        return self.document.get("status") or {}

    def wants(self, switch: str) -> bool:
        """Return a boolean field of the spec, even if the rest of the spec is invalid."""
        return (self.document.get("spec") or {}).get(switch) is True
