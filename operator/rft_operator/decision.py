"""What a decision about an RFTJob rests on, and what it says."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from rft_api.conditions import Phase
from rft_api.job import RFTJob, RFTJobSpec
from rft_api.problems import Problem
from rft_api.report import ProgressReport
from rft_api.status import Plan
from rft_operator.observe import Observed
from rft_planner.plan import Unplannable


class Part(Enum):
    """Objects of a run, in the order in which they are made."""

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
    """What to do: write the status first, then act."""

    status: dict[str, Any]
    spec: RFTJobSpec | None = None
    plan: Plan | None = None
    ensure: tuple[Part, ...] = ()
    patch_child: dict[str, Any] | None = None
    delete_child: bool = False
    remove: tuple[Part, ...] = ()
    """What a passed TTL removes."""
    notes: tuple[Note, ...] = ()
    requeue_after: float | None = None
    log_of: str | None = None
    """The pod whose log would say more. With its last lines, the decision is made once more."""

    @property
    def acts(self) -> bool:
        """Whether more is to be done than to say something."""
        return bool(self.ensure or self.remove or self.delete_child or self.patch_child)


@dataclass(frozen=True)
class Verdict:
    """What a stage decides."""

    phase: Phase
    reason: str
    message: str
    ended: bool = False
    stalled: bool = False
    ensure: tuple[Part, ...] = ()
    patch_child: dict[str, Any] | None = None
    delete_child: bool = False
    requeue_after: float | None = None
    log_of: str | None = None


@dataclass(frozen=True)
class Facts:
    """What the stages look at."""

    document: Mapping[str, Any]
    observed: Observed
    now: datetime
    job: RFTJob | None
    problems: tuple[Problem, ...]
    spec: RFTJobSpec | None
    """The spec that runs: the snapshot once there is one, the user's until then."""
    renews: bool
    """Whether the snapshot is outdated: the user changed, while nothing runs, what may change then."""
    plan: Plan | None
    unplannable: Unplannable | None
    report: ProgressReport | None
    no_progress_seconds: float

    @property
    def status(self) -> Mapping[str, Any]:
        """The status as it is."""
        return self.document.get("status") or {}

    def wants(self, switch: str) -> bool:
        """Return a switch of the user's spec, also where the rest of the spec is not valid."""
        return (self.document.get("spec") or {}).get(switch) is True
