"""The pydantic classes for an RFTJob, for its spec and for its metadata, and the limits for its name."""

from typing import Any, Literal

from pydantic import ConfigDict, Field

from rft_api.base import EMPTY_DEFAULT, Int, Model, map_by
from rft_api.environment import Environment
from rft_api.forms import LABEL
from rft_api.graders import Grader
from rft_api.lifecycle import Checkpoint, Evaluation, Preflight, ResultTarget, Retry, Stop, Tracking
from rft_api.parameters import Sampling, Training
from rft_api.resources import Resources, Template
from rft_api.sources import Dataset, ModelSource, Storage

MAX_NAME_LENGTH = 52
"""Maximum length of metadata.name, in characters.

The name of the child Job is 9 characters longer. It is also the value of a label, and a label may have at
most 63 characters.
"""

NAME_PATTERN = LABEL.pattern
"""The form of metadata.name.

A dot is not allowed, because the names of child objects are also used as labels."""

MUTABLE_AFTER_START = ("suspend", "cancel", "stop", "ttl_seconds_after_finished")
"""Fields of the spec that may change while a run is active."""
MUTABLE_WHILE_SUSPENDED = ("resources", "template")
"""Fields of the spec that may change only while no pod runs."""


class RFTJobSpec(Model):
    """The spec of an RFTJob: what to train, on which rows, and how."""

    model: ModelSource = Field(description="The base model.")
    dataset: Dataset = Field(description="The dataset with the training rows. Exactly one source is set.")
    graders: list[Grader] = Field(
        max_length=64,
        json_schema_extra=map_by("name"),
        description=(
            "The graders, whose scores are combined into the reward. The list may be empty if there is an"
            " environment."
        ),
    )
    environment: Environment | None = Field(
        None,
        description="What the model talks to over several turns. If absent, a rollout is a single answer.",
    )
    evaluation: Evaluation = Field(
        default_factory=Evaluation, json_schema_extra=EMPTY_DEFAULT, description="Held-out evaluation."
    )
    training: Training = Field(
        default_factory=Training, json_schema_extra=EMPTY_DEFAULT, description="How the model learns."
    )
    sampling: Sampling = Field(
        default_factory=Sampling, json_schema_extra=EMPTY_DEFAULT, description="How completions are sampled."
    )
    storage: Storage = Field(description="Storage of the run's folder. Exactly one kind of storage is set.")
    resources: Resources | None = Field(
        None, description="GPUs, CPUs and memory of the pod, in place of the planned values."
    )
    checkpoint: Checkpoint = Field(
        default_factory=Checkpoint,
        json_schema_extra=EMPTY_DEFAULT,
        description="How often checkpoints are saved, and how many are kept.",
    )
    retry: Retry = Field(
        default_factory=Retry,
        json_schema_extra=EMPTY_DEFAULT,
        description="How often a failed run is retried.",
    )
    preflight: Preflight = Field(
        "warn",
        description=(
            "What happens if the base model earns no reward before training: a warning (warn) or an error"
            " (require). With off, this is not checked."
        ),
    )
    tracking: Tracking | None = Field(
        None, description="Services to which the run logs its curves, in addition to the status."
    )
    output: ResultTarget | None = Field(
        None,
        description=(
            "Where the adapter is copied at the end of the run. If absent, it stays on the volume. If the"
            " copy fails, the run has succeeded nevertheless, and its message says how to repeat the copy."
            " rft run starts only if --push-to names the same place."
        ),
    )
    stop: Stop | None = Field(None, description="Conditions under which the run completes early.")
    suspend: bool = Field(
        False, description="If true, the run saves a checkpoint and releases the GPUs. False resumes it."
    )
    cancel: bool = Field(False, description="Save a checkpoint and end the run. It cannot be resumed.")
    active_deadline_seconds: Int | None = Field(
        None,
        ge=1,
        description=(
            "Number of seconds for which the child Job may be active, retries included. After this time the"
            " run fails. After a suspension, counting starts again at 0. To complete a run at a certain time"
            " instead, use stop.deadline. A local run ignores this field."
        ),
    )
    ttl_seconds_after_finished: Int | None = Field(
        None,
        ge=0,
        description=(
            "Number of seconds after the end of the run at which its child Job, pods and ConfigMap are"
            " deleted."
        ),
    )
    template: Template | None = Field(None, description="Changes to the trainer's pod.")

    @property
    def scored_by(self) -> list[Grader]:
        """All graders of the job, in the order of the spec.

        If the job has an environment, the last grader stands for the environment and its reward.
        """
        return self.graders if self.environment is None else [*self.graders, self.environment.as_grader()]

    @property
    def rollout_tokens(self) -> int:
        """The largest number of tokens that may be sampled in all turns of a rollout together.

        Without an environment, a rollout has one turn.
        """
        each = self.sampling.max_tokens
        return each if self.environment is None else self.environment.most_tokens(each)


class Metadata(Model):
    """The metadata of an RFTJob, such as its name and its labels.

    Other fields of Kubernetes' ObjectMeta are ignored here, because Kubernetes validates them.
    """

    model_config = ConfigDict(extra="ignore", strict=False)

    name: str = Field(min_length=1, max_length=MAX_NAME_LENGTH, pattern=NAME_PATTERN)
    namespace: str = "default"
    uid: str = ""
    generation: int = 1
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    resource_version: str = ""
    creation_timestamp: str = ""
    deletion_timestamp: str | None = None


class RFTJob(Model):
    """An RFTJob: a Kubernetes resource that stands for one run of reinforcement fine-tuning."""

    model_config = ConfigDict(extra="ignore")

    api_version: Literal["rft.dev/v1alpha1"] = "rft.dev/v1alpha1"
    kind: Literal["RFTJob"] = "RFTJob"
    metadata: Metadata
    spec: RFTJobSpec
    status: dict[str, Any] | None = None
