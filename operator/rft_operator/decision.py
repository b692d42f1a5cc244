"""Types for a decision about an RFTJob: the facts before the decision, and its result."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from functools import cached_property
from typing import Any

from rft_api.conditions import Phase
from rft_api.defaults import NO_DEFAULTS, JobDefaults, accelerator_of, inherit
from rft_api.job import RFTJob, RFTJobSpec
from rft_api.problems import Problem
from rft_api.status import Plan
from rft_operator.observe import Observed
from rft_planner.plan import Unplannable
from rft_run.cluster_text import ClusterObject, ClusterText
from rft_run.report import ProgressReport


class ChildKind(Enum):
    """The kinds of child objects of a run, in the order in which they are created.

    ``CONFIG`` is the ConfigMap with the configuration of the run, ``CA`` is the ConfigMap with the CA
    certificates, and ``CLAIM`` is the PersistentVolumeClaim. The ConfigMaps come first, because the operator
    can replace them if the API server refuses a later object. It cannot replace a PersistentVolumeClaim.
    """

    CONFIG = "config"
    CA = "ca"
    CLAIM = "claim"
    JOB = "job"


@dataclass(frozen=True)
class Note:
    """A Kubernetes Event to post about an RFTJob. Its type is Warning if ``warning`` is true, else Normal."""

    reason: str
    message: ClusterText
    warning: bool = False


@dataclass(frozen=True)
class Decision:
    """A decision about an RFTJob: the new status, and the changes to its child objects.

    The status is written first. ``ensure`` has the kinds of child objects to create or replace,
    ``patch_child`` is a merge patch of the child Job, and ``requeue_after`` is in seconds.
    """

    status: ClusterObject
    spec: RFTJobSpec | None = None
    """The spec as the user wrote it, to be stored in the run's ConfigMap (its snapshot)."""
    defaults: JobDefaults = NO_DEFAULTS
    """The platform's defaults for this run, to be stored in the run's ConfigMap (its snapshot)."""
    pod_spec: RFTJobSpec | None = None
    """The spec with the platform's defaults. The child objects are made from it, except the snapshot."""
    plan: Plan | None = None
    ensure: tuple[ChildKind, ...] = ()
    patch_child: dict[str, Any] | None = None
    delete_child: bool = False
    remove: tuple[ChildKind, ...] = ()
    """Kinds of child objects to delete, because the TTL of the finished job has passed."""
    notes: tuple[Note, ...] = ()
    requeue_after: float | None = None
    log_of: str | None = None
    """Name of a pod whose last log lines the status message must show. The controller reads these lines, and
    calls ``reconcile`` again with them."""

    @property
    def acts(self) -> bool:
        """Return whether the decision changes child objects, and not only the status."""
        return bool(self.ensure or self.remove or self.delete_child or self.patch_child)


@dataclass(frozen=True)
class Verdict:
    """What one stage decides: phase, reason and message of the RFTJob, and the changes to child objects.

    Fields with the name of a field of ``Decision`` have the same meaning.
    """

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
    """The facts about one RFTJob from which the stages make the decision."""

    document: Mapping[str, Any]
    observed: Observed
    now: datetime
    job: RFTJob | None
    problems: tuple[Problem, ...]
    spec: RFTJobSpec | None
    """The spec that the run uses: the one in its snapshot, the ConfigMap with which it was started. Without a
    snapshot it is the spec of the RFTJob.
    """
    defaults: JobDefaults
    """The platform's defaults for the run: those in the snapshot. Without a snapshot they are the current
    defaults.
    """
    renews: bool
    """Whether a new snapshot (the ConfigMap with the run's configuration) replaces the present one, for
    example because the user changed the spec of a suspended run."""
    plan: Plan | None
    unplannable: Unplannable | None
    report: ProgressReport | None
    no_progress_seconds: float

    @cached_property
    def pod_spec(self) -> RFTJobSpec | None:
        """The spec with the platform's defaults filled in. The pod is made from it."""
        if self.spec is None or self.plan is None:
            return self.spec
        return inherit(self.spec, self.defaults, accelerator_of(self.plan)).spec

    @property
    def status(self) -> Mapping[str, Any]:
        """The status that the RFTJob had when it was read."""
        return self.document.get("status") or {}

    def wants(self, switch: str) -> bool:
        """Return whether the boolean field ``switch`` of the spec is true. The rest of the spec may be
        invalid.
        """
        return (self.document.get("spec") or {}).get(switch) is True
