"""The pydantic classes for a job's evaluation, checkpoints, retries, early stops, tracking and result."""

from datetime import UTC, datetime
from typing import Literal

from pydantic import Field

from rft_api.base import Int, Model
from rft_api.forms import HUB_BRANCH, HUB_REPOSITORY, MOMENT, S3_FOLDER
from rft_api.sources import Dataset, SecretKeyRef

_MOMENT = "%Y-%m-%dT%H:%M:%SZ"


def read_moment(text: str) -> datetime:
    """Return the time of a deadline such as ``2027-01-31T18:00:00Z``.

    Raises ValueError if ``text`` has another form, or if there is no such date or time.
    """
    return datetime.strptime(text, _MOMENT).replace(tzinfo=UTC)


class Evaluation(Model):
    """Settings of the evaluation, which compares the base model and the tuned model on held-out rows.

    Held-out rows are never trained on.
    """

    dataset: Dataset | None = Field(
        None,
        description=(
            "Separate dataset for the evaluation. If absent, a fraction of the training rows is held out."
        ),
    )
    fraction: float = Field(
        0.1,
        ge=0,
        le=0.5,
        description=(
            "Fraction of the training rows that is held out. At least 32 and at most 256 rows are held out."
            " With 0 and without an evaluation dataset, there is no evaluation."
        ),
    )
    every_steps: Int | None = Field(
        None,
        ge=1,
        description=(
            "Number of training steps between evaluations. If absent, the policy is evaluated only before"
            " the first and after the last step."
        ),
    )
    temperature: float = Field(
        0.0, ge=0, le=2, description="Sampling temperature of the evaluation. 0 means greedy decoding."
    )
    samples: Int = Field(
        1, ge=1, le=16, description="Number of completions per row. With temperature 0 it is 1."
    )

    @property
    def is_off(self) -> bool:
        """Whether no rows are held out: ``fraction`` is 0, and there is no evaluation dataset."""
        return self.dataset is None and self.fraction == 0


class Checkpoint(Model):
    """How often the trainer saves a checkpoint, and how many checkpoints it keeps."""

    every_steps: Int = Field(10, ge=1, description="Number of training steps between checkpoints.")
    keep: Int = Field(
        3,
        ge=1,
        le=100,
        description=(
            "Number of newest checkpoints to keep. The checkpoint with the highest held-out reward is"
            " always kept."
        ),
    )


class Retry(Model):
    """How many times a run is restarted after failures."""

    limit: Int = Field(
        3, ge=0, le=20, description="Maximum number of restarts after failures. Preemptions are not counted."
    )


class Stop(Model):
    """Conditions under which a run completes early. It saves a checkpoint before it ends."""

    target_reward: float | None = Field(
        None, ge=0, le=1, description="The run completes when the held-out reward reaches this value."
    )
    patience: Int | None = Field(
        None,
        ge=1,
        description=(
            "The run completes after this number of evaluations without a new highest held-out reward."
        ),
    )
    max_steps: Int | None = Field(
        None, ge=1, description="The run completes after this number of training steps."
    )
    max_gpu_hours: float | None = Field(
        None,
        gt=0,
        description="The run completes when all its attempts together have used this number of GPU-hours.",
    )
    canary: float | None = Field(
        None,
        gt=0,
        le=1,
        description=(
            "The run completes when the mean score of a canary (a grader of weight 0) falls while the reward"
            " rises. The fall must be at least this amount, and more than noise. The result of the run is"
            " the last checkpoint before the fall."
        ),
    )
    deadline: str | None = Field(
        None,
        **MOMENT.limits(),
        description="The run completes at this time in UTC, such as 2027-01-31T18:00:00Z.",
    )


class Wandb(Model):
    """Settings for tracking a run with Weights & Biases."""

    project: str = Field(min_length=1, description="Name of the project in Weights & Biases.")
    entity: str | None = Field(None, description="Name of the team or user in Weights & Biases.")
    base_url: str | None = Field(None, description="URL of a private Weights & Biases server.")
    secret_ref: SecretKeyRef = Field(description="Secret with the API key.")
    upload_adapter: bool = Field(
        True, description="Upload the final adapter to Weights & Biases as an artifact."
    )


class Mlflow(Model):
    """Settings for tracking a run with MLflow."""

    tracking_uri: str = Field(min_length=1, description="URL of the MLflow tracking server.")
    experiment: str = Field(min_length=1, description="Name of the MLflow experiment.")
    secret_ref: SecretKeyRef | None = Field(None, description="Secret with the token.")
    upload_adapter: bool = Field(True, description="Upload the final adapter to MLflow as an artifact.")


class Tensorboard(Model):
    """Tracking by TensorBoard. The trainer writes event files into the folder of the run. No settings."""


class Tracking(Model):
    """Services to which a run logs its curves and parameters, in addition to the status."""

    wandb: Wandb | None = Field(None, description="Log to Weights & Biases.")
    mlflow: Mlflow | None = Field(None, description="Log to MLflow.")
    tensorboard: Tensorboard | None = Field(None, description="Write TensorBoard event files.")


class HubOutput(Model):
    """A repository of the Hugging Face hub, to which the adapter is copied at the end of the run."""

    repository: str = Field(
        **HUB_REPOSITORY.limits(),
        description="Repository of the hub, such as my-team/my-adapter. It is created if it is missing.",
    )
    revision: str | None = Field(
        None,
        **HUB_BRANCH.limits(),
        description="Branch of the repository. It is created if it is missing. If absent, main.",
    )
    private: bool = Field(
        True,
        description=(
            "Whether the repository must be private. A missing repository is created private or public, as"
            " this field says. With true, nothing is pushed to a repository that is public."
        ),
    )
    secret_ref: SecretKeyRef | None = Field(
        None,
        description=(
            "Secret with a hub token that may write to the repository. If absent, the token of"
            " model.secretRef is used."
        ),
    )


class S3Output(Model):
    """A folder in an S3 bucket, to which the adapter is copied at the end of the run."""

    uri: str = Field(
        **S3_FOLDER.limits(),
        description=(
            "Bucket and prefix, such as s3://my-bucket/adapters/my-job. The credentials are those of the"
            " pod, as for dataset.uri."
        ),
    )


class ResultTarget(Model):
    """The place to which the adapter is copied at the end of the run. The adapter also stays on the run's
    volume. Exactly one of hub and s3 is set.
    """

    hub: HubOutput | None = Field(None, description="Copy it to a repository of the Hugging Face hub.")
    s3: S3Output | None = Field(None, description="Copy it to a bucket of S3 or of a server that speaks S3.")
    adapter: Literal["final", "best"] = Field(
        "final",
        description=(
            "The adapter of the last step (final), or of the checkpoint with the highest held-out reward"
            " (best)."
        ),
    )


Preflight = Literal["require", "warn", "off"]
