"""The models of the fields for evaluation, checkpoints, retries, stopping and tracking."""

from datetime import UTC, datetime
from typing import Literal

from pydantic import Field

from rft_api.base import Int, Model
from rft_api.forms import MOMENT
from rft_api.sources import Dataset, SecretKeyRef

_MOMENT = "%Y-%m-%dT%H:%M:%SZ"


def read_moment(text: str) -> datetime:
    """Return the time of a deadline. Raises ValueError if ``text`` is not a valid time."""
    return datetime.strptime(text, _MOMENT).replace(tzinfo=UTC)


class Evaluation(Model):
    """Held-out evaluation: base model and tuned model are compared on the same rows, which are never
    trained on.
    """

    dataset: Dataset | None = Field(None, description="Rows of their own; otherwise a fraction is held out.")
    fraction: float = Field(
        0.1,
        ge=0,
        le=0.5,
        description=(
            "Share of the training rows that is held out, 32 to 256 rows. 0 without a dataset turns the"
            " evaluation off."
        ),
    )
    every_steps: Int | None = Field(
        None, ge=1, description="Also evaluate every so many steps; before and after if absent."
    )
    temperature: float = Field(0.0, ge=0, le=2, description="0 is greedy.")
    samples: Int = Field(1, ge=1, le=16, description="Completions per row; 1 when greedy.")

    @property
    def is_off(self) -> bool:
        """Whether no rows are held out: ``fraction`` is 0, and there is no evaluation dataset."""
        return self.dataset is None and self.fraction == 0


class Checkpoint(Model):
    """When the run's state is saved, and how much of it is kept."""

    every_steps: Int = Field(10, ge=1, description="Steps between checkpoints.")
    keep: Int = Field(3, ge=1, le=100, description="Checkpoints kept; the best by held-out reward always is.")


class Retry(Model):
    """How often a run is retried after a temporary failure."""

    limit: Int = Field(3, ge=0, le=20, description="Restarts after failures; preemptions do not count.")


class Stop(Model):
    """Conditions under which a run completes early. It saves a checkpoint before it ends."""

    target_reward: float | None = Field(None, ge=0, le=1, description="Held-out reward to reach.")
    patience: Int | None = Field(None, ge=1, description="Evaluations without a new best.")
    max_steps: Int | None = Field(None, ge=1, description="Optimizer steps.")
    max_gpu_hours: float | None = Field(None, gt=0, description="GPU-hours of all attempts together.")
    canary: float | None = Field(
        None,
        gt=0,
        le=1,
        description=(
            "Fall of the mean score of a grader of weight 0, beyond noise and while the reward rises. The run"
            " ends at the last checkpoint before the fall."
        ),
    )
    deadline: str | None = Field(
        None,
        **MOMENT.limits(),
        description="Moment in UTC, e.g. 2027-01-31T18:00:00Z.",
    )


class Wandb(Model):
    """Settings for tracking a run with Weights & Biases."""

    project: str = Field(min_length=1, description="Project name.")
    entity: str | None = Field(None, description="Team or user.")
    base_url: str | None = Field(None, description="Address of a private server.")
    secret_ref: SecretKeyRef = Field(description="API key, by reference only.")
    upload_adapter: bool = Field(True, description="Keep the final adapter there as an artifact.")


class Mlflow(Model):
    """Settings for tracking a run with MLflow."""

    tracking_uri: str = Field(min_length=1, description="Address of the tracking server.")
    experiment: str = Field(min_length=1, description="Experiment name.")
    secret_ref: SecretKeyRef | None = Field(None, description="Token, by reference only.")
    upload_adapter: bool = Field(True, description="Keep the final adapter there as an artifact.")


class Tensorboard(Model):
    """TensorBoard event files that the trainer writes to the folder of the run."""


class Tracking(Model):
    """Where curves and parameters are logged beside the status."""

    wandb: Wandb | None = Field(None, description="Log to Weights & Biases.")
    mlflow: Mlflow | None = Field(None, description="Log to MLflow.")
    tensorboard: Tensorboard | None = Field(None, description="Write TensorBoard event files.")


Preflight = Literal["require", "warn", "off"]
