"""Phases, condition types and reasons: each reason beside what it means."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import Field

from rft_api.base import Int, Model

Phase = Literal["Pending", "Queued", "Starting", "Running", "Suspended", "Succeeded", "Failed", "Cancelled"]
TERMINAL_PHASES = ("Succeeded", "Failed", "Cancelled")

ConditionType = Literal[
    "Accepted", "Planned", "Reconciling", "Ready", "Stalled", "Suspended", "Complete", "Failed"
]
CONDITION_TYPES: tuple[ConditionType, ...] = (
    "Accepted",
    "Planned",
    "Reconciling",
    "Ready",
    "Stalled",
    "Suspended",
    "Complete",
    "Failed",
)


class Condition(Model):
    """A Kubernetes condition."""

    type: ConditionType = Field(description="What the condition is about.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    reason: str = Field(min_length=1, description="One word for machines.")
    message: str = Field("", max_length=4096, description="One sentence for people.")
    last_transition_time: str = Field(description="When status last changed, RFC 3339.")
    observed_generation: Int | None = Field(None, description="Generation of the spec it speaks of.")


class Reason:
    """Reasons of conditions and Events."""

    ACCEPTED = "Accepted"  # the spec is valid
    INVALID_SPEC = "InvalidSpec"  # a field is out of range or fields contradict each other
    IMMUTABLE_FIELD_CHANGED = "ImmutableFieldChanged"  # an edit after start; the run ignores it
    PLANNED = "Planned"  # GPUs and memory are derived
    OVERRIDDEN = "PlanOverridden"  # spec.resources.gpus is obeyed, and the plan would take another number
    UNKNOWN_MODEL = "UnknownModel"  # neither catalogue nor config.json knows the model
    UNKNOWN_ACCELERATOR = "UnknownAccelerator"  # the catalogue does not know it and no memory is given
    DOES_NOT_FIT = "DoesNotFit"  # no number of GPUs that a pod may have holds the run
    NAME_CONFLICT = "NameConflict"  # a child's name is taken by an object that is not ours
    QUEUED = "Queued"  # something else, such as Kueue, holds the child Job suspended
    INADMISSIBLE = "Inadmissible"  # Kueue will not admit the child Job until somebody changes something
    PREEMPTED = "Preempted"  # Kueue has taken the child Job's quota back for another; it is queued again
    FAILED_CREATE = "FailedCreate"  # the API server does not take an object of the run; it is tried again
    WAITING_FOR_POD = "WaitingForPod"  # the child Job exists, no pod runs yet
    UNSCHEDULABLE = "Unschedulable"  # no node has what the pod asks for
    IMAGE_PULL = "ImagePull"  # the image cannot be pulled
    STARTING = "Starting"  # the pod runs, the trainer has not stepped yet
    TRAINING = "Training"  # steps are made
    NO_PROGRESS = "NoProgress"  # the pod runs but makes no steps
    NODE_LOST = "NodeLost"  # the pod's node does not answer, and nobody can tell whether the pod still runs
    RETRYING = "Retrying"  # a pod failed, the Job controller starts another
    SUSPENDED = "Suspended"  # spec.suspend
    CANCELLED = "Cancelled"  # spec.cancel
    COMPLETED = "Completed"  # every epoch trained
    TARGET_REWARD = "TargetRewardReached"  # stop.targetReward
    PATIENCE = "PatienceExhausted"  # stop.patience
    MAX_STEPS = "MaxStepsReached"  # stop.maxSteps
    MAX_GPU_HOURS = "MaxGpuHoursReached"  # stop.maxGpuHours
    DEADLINE = "DeadlineReached"  # stop.deadline
    CONFIGURATION = "ConfigurationError"  # the trainer refused its configuration
    DATA = "DataError"  # the dataset cannot be read; the message has the lines
    USER_CODE = "GraderError"  # a grader with onError: fail failed
    OUT_OF_MEMORY = "OutOfMemory"  # the pod ran out of memory
    BACKOFF_LIMIT = "RetryLimitReached"  # failed retry.limit + 1 times
    VOLUME = "VolumeError"  # the run's folder cannot be written
    TRAINER_FAILED = "TrainerFailed"  # anything else, with the last message
    NOT_YET = "NotYet"  # the condition does not hold so far


COMPLETED_BECAUSE = {
    Reason.COMPLETED: "Every epoch is trained.",
    Reason.TARGET_REWARD: "The held-out reward has reached spec.stop.targetReward.",
    Reason.PATIENCE: "The held-out reward has not risen for spec.stop.patience evaluations.",
    Reason.MAX_STEPS: "spec.stop.maxSteps is reached.",
    Reason.MAX_GPU_HOURS: "spec.stop.maxGpuHours is spent.",
    Reason.DEADLINE: "spec.stop.deadline has passed.",
}
"""Reasons for which a run succeeds, in a sentence."""


def merge(old: Iterable[Mapping[str, Any]], wanted: Iterable[Condition]) -> list[dict[str, Any]]:
    """Return the full list of conditions with stable transition times.

    A condition keeps its ``lastTransitionTime`` while its status stays the same, so a status that
    says nothing new compares equal and is not written again.
    """
    before = {c.get("type"): c for c in old}
    merged = []
    for condition in wanted:
        entry = condition.dump()
        previous = before.get(condition.type)
        if previous is not None and previous.get("status") == condition.status:
            entry["lastTransitionTime"] = previous["lastTransitionTime"]
        merged.append(entry)
    return merged
