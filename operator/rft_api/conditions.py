"""The phases of an RFTJob, the conditions that are True in each phase, and the reasons of conditions."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args

from pydantic import Field

from rft_api.base import DATE_TIME, Int, Model

Phase = Literal[
    "Pending",
    "Queued",
    "Starting",
    "Running",
    "Suspended",
    "Invalid",
    "Succeeded",
    "Failed",
    "Cancelled",
]
TERMINAL_PHASES = ("Succeeded", "Failed", "Cancelled")
"""Phases that a job never leaves."""
RESTING_PHASES = (*TERMINAL_PHASES, "Invalid")
"""Phases that a job leaves only if a person edits it, or never. A program that waits for the end of a job
should stop waiting in these phases.
"""

ConditionType = Literal[
    "Accepted",
    "Planned",
    "Reconciling",
    "Ready",
    "Stalled",
    "Suspended",
    "Complete",
    "Failed",
    "Cancelled",
]
CONDITION_TYPES: tuple[ConditionType, ...] = get_args(ConditionType)
TERMINAL_CONDITIONS: tuple[ConditionType, ...] = ("Complete", "Failed", "Cancelled")
"""When a job has ended, exactly one of these conditions is True. None of them changes afterwards."""
PHASE_CONDITIONS: Mapping[Phase, tuple[ConditionType, ...]] = MappingProxyType(
    {
        "Pending": ("Reconciling",),
        "Queued": ("Reconciling",),
        "Starting": ("Reconciling",),
        "Running": ("Ready",),
        "Suspended": ("Ready", "Suspended"),
        "Invalid": ("Stalled",),
        "Succeeded": ("Ready", "Complete"),
        "Failed": ("Stalled", "Failed"),
        "Cancelled": ("Ready", "Cancelled"),
    }
)
"""The conditions that are True in each phase. Accepted and Planned are not listed, because they do not depend
on the phase.

The conditions follow kstatus, which helm and Flux use to wait for objects:

- Reconciling: the object is not yet in the state that its spec asks for.
- Stalled: the object will not get into this state without the help of a person.

The spec of an RFTJob asks for a running training. So a job that makes steps is Ready and not Reconciling. To
wait for the end of a job, wait for one of ``TERMINAL_CONDITIONS``.

In the phase Invalid nothing runs until a person edits the spec, so Stalled is True. Failed is not True,
because the job goes on after the edit.
"""
MAX_MESSAGE = 4096
"""Maximum number of characters in a message of a condition or of the status."""


class Condition(Model):
    """A Kubernetes condition in the status of an RFTJob, such as Ready or Failed."""

    type: ConditionType = Field(description="Type of the condition, such as Ready or Failed.")
    status: Literal["True", "False", "Unknown"] = Field(
        description="Status of the condition: True, False, or Unknown."
    )
    reason: str = Field(
        min_length=1,
        description="Reason for the status of the condition, as one word that programs can read.",
    )
    message: str = Field("", max_length=MAX_MESSAGE, description="Explanation for people.")
    last_transition_time: str = Field(
        json_schema_extra=DATE_TIME,
        description="Time at which the status of the condition last changed, in RFC 3339.",
    )
    observed_generation: Int | None = Field(
        None, description="Generation of the spec that the condition describes."
    )


class Reason:
    """The possible reasons of an RFTJob's conditions and Events. Each is one word that programs can read."""

    ACCEPTED = "Accepted"  # the spec is valid
    INVALID_SPEC = "InvalidSpec"  # a field is out of range or fields contradict each other
    IMMUTABLE_FIELD_CHANGED = "ImmutableFieldChanged"  # an edit after the start; the run ignores the edit
    PLANNED = "Planned"  # GPUs and memory are derived
    OVERRIDDEN = "PlanOverridden"  # spec.resources.gpus is used, although the plan has another number
    UNKNOWN_MODEL = "UnknownModel"  # neither the catalogue nor config.json has the model's size
    UNTRAINABLE_MODEL = "UntrainableModel"  # the trainer cannot train models of this type
    UNKNOWN_ACCELERATOR = "UnknownAccelerator"  # the accelerator is unknown, and so is its memory
    DOES_NOT_FIT = "DoesNotFit"  # the run fits on no number of GPUs that a pod may have
    NAME_CONFLICT = "NameConflict"  # an object of somebody else has the name of a child object
    QUEUED = "Queued"  # another program, such as Kueue, keeps the child Job suspended
    INADMISSIBLE = "Inadmissible"  # Kueue cannot admit the child Job without a change by a person
    PREEMPTED = "Preempted"  # Kueue preempted the child Job for another one; it is queued again
    FAILED_CREATE = "FailedCreate"  # the API server refused an object of the run; the operator tries again
    WAITING_FOR_POD = "WaitingForPod"  # the child Job exists, no pod runs yet
    UNSCHEDULABLE = "Unschedulable"  # no node has the resources that the pod requests
    IMAGE_PULL = "ImagePull"  # the image cannot be pulled
    CANNOT_START = "CannotStart"  # a pod has a node, and something keeps its containers from starting
    STARTING = "Starting"  # the pod runs, the trainer has made no step yet
    TRAINING = "Training"  # the trainer makes steps
    NO_PROGRESS = "NoProgress"  # the pod runs but makes no steps
    NODE_LOST = "NodeLost"  # the pod's node does not answer, so it is unknown whether the pod still runs
    RETRYING = "Retrying"  # a pod failed, and the Job controller starts another one
    SUSPENDED = "Suspended"  # spec.suspend is true
    CANCELLED = "Cancelled"  # spec.cancel is true
    COMPLETED = "Completed"  # every epoch is trained
    TARGET_REWARD = "TargetRewardReached"  # the held-out reward has reached stop.targetReward
    PATIENCE = "PatienceExhausted"  # the held-out reward has not risen for stop.patience evaluations
    CANARY = "CanaryFell"  # the score of a canary fell by stop.canary while the reward rose
    MAX_STEPS = "MaxStepsReached"  # stop.maxSteps is reached
    MAX_GPU_HOURS = "MaxGpuHoursReached"  # the run has used stop.maxGpuHours
    DEADLINE = "DeadlineReached"  # stop.deadline has passed
    CONFIGURATION = "ConfigurationError"  # the trainer refused its configuration
    DATA = "DataError"  # the dataset cannot be read; the message has the lines
    USER_CODE = "GraderError"  # a grader with onError: fail failed
    OUT_OF_MEMORY = "OutOfMemory"  # the pod ran out of memory
    SAMPLER_MISMATCH = "SamplerMismatch"  # the sampler's probabilities differ too much from the trainer's
    ACTIVE_DEADLINE = "DeadlineExceeded"  # the child Job was active for spec.activeDeadlineSeconds
    BACKOFF_LIMIT = "RetryLimitReached"  # the run failed retry.limit + 1 times
    EVICTED = "Evicted"  # kubelets evicted the pods of the run too often
    INTERRUPTED = "Interrupted"  # too many pods in a row were stopped before they made a step
    VOLUME = "VolumeError"  # the run's folder cannot be written, or the limit for the node's disk was reached
    TRAINER_FAILED = "TrainerFailed"  # the trainer failed for another reason, which its last message says
    NOT_YET = "NotYet"  # the condition has never been True


COMPLETED_BECAUSE = {
    Reason.COMPLETED: "Every epoch is trained.",
    Reason.TARGET_REWARD: "The held-out reward has reached spec.stop.targetReward.",
    Reason.PATIENCE: "The held-out reward has not risen for spec.stop.patience evaluations.",
    Reason.CANARY: (
        "The score of a canary fell by spec.stop.canary while the reward rose; the result is the last"
        " checkpoint before the fall."
    ),
    Reason.MAX_STEPS: "spec.stop.maxSteps is reached.",
    Reason.MAX_GPU_HOURS: "spec.stop.maxGpuHours is spent.",
    Reason.DEADLINE: "spec.stop.deadline has passed.",
}
"""The reasons why a job can end successfully, each with the message of the condition Complete."""
NOT_SO_FAR = "Not so far."


class Gate(NamedTuple):
    """The state of the condition Accepted or of the condition Planned of a job.

    ``holds`` says whether the condition is True. These two conditions do not depend on the phase of the job.
    """

    holds: bool
    reason: str
    message: str


ACCEPTED = Gate(True, Reason.ACCEPTED, "The spec is valid.")
NOT_PLANNED = Gate(False, Reason.NOT_YET, NOT_SO_FAR)


def planned_by(notes: Iterable[str]) -> Gate:
    """Return the state of the condition Planned for a job that has a plan. The condition is True.

    ``notes`` are sentences that explain the plan. They are joined to the message of the condition.
    """
    return Gate(True, Reason.PLANNED, "; ".join(notes) or "Planned.")


def cut(message: str) -> str:
    """Return a message for the status, truncated to ``MAX_MESSAGE`` characters if it is longer.

    A truncated message ends with an ellipsis.
    """
    return message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 1] + "…"


def conditions_of(
    phase: Phase,
    reason: str,
    message: str,
    *,
    accepted: Gate,
    planned: Gate,
    now: str,
    generation: int | None = None,
    stalled: bool = False,
) -> list[Condition]:
    """Return all conditions of a job in ``phase``, True ones and False ones, in the order of
    ``CONDITION_TYPES``.

    - ``generation``: the generation of the spec that the conditions describe. None: it is not known.
    - ``reason`` and ``message``: used for Reconciling and Ready, and for every other condition that is True,
      except Accepted and Planned.
    - ``accepted`` and ``planned``: the states of the conditions Accepted and Planned.
    - ``stalled``: if true, the condition Stalled is True also in a phase that does not imply it.
    - ``now``: the current time, in RFC 3339. Every condition gets it as its transition time. ``merge`` then
      restores the earlier transition time of each condition whose status has not changed.

    Both the operator and ``rft run`` write these conditions.
    """
    holds = {kind: kind in PHASE_CONDITIONS[phase] for kind in CONDITION_TYPES}
    holds["Stalled"] |= stalled
    said = (reason, message)
    says = {"Reconciling": said, "Ready": said, "Accepted": accepted[1:], "Planned": planned[1:]}
    holds |= {"Accepted": accepted.holds, "Planned": planned.holds}
    # A condition that is not in ``says`` yet has the given reason and message while it is True, and a fixed
    # text while it is not. The fixed text is not empty, because some old API servers read an empty text as
    # null.
    for kind in CONDITION_TYPES:
        says.setdefault(kind, said if holds[kind] else (Reason.NOT_YET, NOT_SO_FAR))
    return [
        Condition(
            type=kind,
            status="True" if holds[kind] else "False",
            reason=says[kind][0],
            message=cut(says[kind][1]),
            last_transition_time=now,
            observed_generation=generation,
        )
        for kind in CONDITION_TYPES
    ]


def merge(old: Iterable[Mapping[str, Any]], wanted: Iterable[Condition]) -> list[Condition]:
    """Return the new conditions ``wanted``, with corrected transition times.

    ``old`` are the earlier conditions as JSON objects. A new condition with the same status as the earlier
    condition of its type gets the transition time of the earlier one. If nothing else differs, both are now
    equal, and the condition need not be written again.
    """
    before = {c.get("type"): c for c in old}
    merged = []
    for condition in wanted:
        previous = before.get(condition.type)
        if previous is not None and previous.get("status") == condition.status:
            since = previous["lastTransitionTime"]
            condition = condition.model_copy(update={"last_transition_time": since})
        merged.append(condition)
    return merged
