"""Defines and reads ``metrics.jsonl`` in a run's folder. Each line is JSON with the metrics of one training
step.
"""

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, ValidationError

from rft_run import run_files
from rft_run.record import Record, Whole


class UnreadableSteps(ValueError):
    """The file ``metrics.jsonl`` is invalid or too large. The message has its path and the reason."""


class StepRecord(Record):
    """The metrics of one training step. A metric is None if it was not computed in this step, or if an older
    release, which did not know the metric, wrote the record.
    """

    step: Whole
    reward: float | None = None
    """Mean reward of the graded rollouts of the step."""
    reward_std: float | None = None
    graders: dict[str, float] = Field(default_factory=dict)
    """Mean score of each grader, by the name of the grader."""
    forged_replies: int | None = None
    """Number of forged replies in the step, which the grader process refused. A program other than the
    grader's worker process wrote them, for example a program that a user's code started."""
    loss: float | None = None
    kl: float | None = None
    """Mean KL of the policy to the reference, per token, in nats, by Schulman's estimate k3."""
    entropy: float | None = None
    """Mean entropy of the sampling distribution per token, in nats."""
    clip_fraction: float | None = None
    updates: Whole | None = None
    """Number of optimizer steps in this training step. It is below ``updatesPerBatch`` if the batch has too
    few groups, or groups without a gradient."""
    grad_norm: float | None = None
    """Norm of the gradient before gradient clipping."""
    mismatch_kl: float | None = None
    """Mean KL between the sampler's and the trainer's probabilities, per token, in nats, by Schulman's
    estimate k3."""
    mismatch_mean_abs: float | None = None
    mismatch_bounded_fraction: float | None = None
    """Share of the tokens whose mismatch weight was changed, from 0 to 1. The mismatch weight of a token is
    its probability in the trainer divided by its probability in the sampler.

    A weight outside its limits is set to the limit. If the mean weight of a sequence is outside its limits,
    all weights of the sequence are set to 0."""
    staleness: Whole | None = None
    """Number of adapter versions by which the weights that sampled the batch are older than the weights that
    the step trains. 0: both are the same."""
    outside_filter_tokens: Whole | None = None
    """Number of sampled tokens that top-k or top-p would exclude, if they were applied to the trainer's
    probabilities and not to the sampler's."""
    truncated_fraction: float | None = None
    zero_variance_fraction: float | None = None
    completion_tokens: float | None = None
    """Mean length in tokens of the completions that have a reward."""
    groups: Whole | None = None
    rollouts: Whole | None = None
    dropped_groups: Whole | None = None
    refilled_groups: Whole | None = None
    """Number of groups that were sampled to replace groups whose rewards are all equal."""
    overlong_penalty: float | None = None
    """Mean penalty for long completions. ``reward`` is the mean before this penalty is subtracted."""
    turns: float | None = None
    """Mean number of the model's turns in a rollout. None if the job has no environment."""
    tool_calls: float | None = None
    """Mean number of tool calls in a rollout."""
    tool_errors: Whole | None = None
    """Number of failed or unreadable tool calls in the step."""
    limited_fraction: float | None = None
    """Share of the rollouts that a limit of the environment ended, such as ``maxTurns``, from 0 to 1."""
    environment_errors: Whole | None = None
    """Number of rollouts in the step that ended because the environment failed."""
    refused_requests: Whole | None = None
    """Number of requests from users' agents in the step that the trainer's HTTP endpoint refused. For
    example, a request had the token of another rollout."""
    environment_fraction: float | None = None
    """Share of the rollouts' time that was spent waiting for the environment, from 0 to 1."""
    forward_tokens: Whole | None = None
    """Number of tokens in all forward passes of the update, padding included."""
    learning_rate: float | None = None
    epoch: Whole | None = None
    adapter_version: Whole | None = None
    tokens_per_second: float | None = None
    """Number of sampled tokens per second of sampling."""
    step_seconds: float | None = None
    phases: dict[str, float] = Field(default_factory=dict)
    """Seconds that each phase of the step took: ``rollout``, ``grade``, ``update`` and ``publish``."""
    attempt: Whole | None = None
    time: str | None = None
    """The time when the step ended, in RFC 3339 form."""


def read_steps(path: Path, broken: list[int] | None = None) -> list[StepRecord]:
    """Return the records of all steps in ``metrics.jsonl``, or an empty list if there is no file.

    A last line without a newline is ignored, because the trainer still writes it, or was killed.

    ``broken``: a list that gets the numbers of invalid lines, from 1. These lines are skipped. None: an
    invalid line is an error.

    Raises UnreadableSteps if the file is too large or not a regular file, or if a line is invalid, and
    OSError.
    """
    records: list[StepRecord] = []
    try:
        with run_files.opened(path) as file:
            for number, line in enumerate(run_files.lines(file, run_files.METRICS_BYTES), start=1):
                if not line.endswith(b"\n"):
                    break
                if number > run_files.METRICS_LINES:
                    raise run_files.UnreadableFile(
                        f"has more than {run_files.METRICS_LINES:,} steps, the most that are read"
                    )
                try:
                    records.append(_step(line, number))
                except ValueError:
                    if broken is None:
                        raise
                    broken.append(number)
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise UnreadableSteps(f"{path}: {error}") from error
    return records


def _step(line: bytes, number: int) -> StepRecord:
    try:
        return StepRecord.from_line(line.decode(errors="replace"))
    except ValidationError as error:
        raise ValueError(f"line {number}: is not the record of a step") from error


def as_lines(records: Sequence[StepRecord]) -> bytes:
    """Return the content of a file ``metrics.jsonl`` with these records, one JSON line for each."""
    return "".join(record.as_line() for record in records).encode()
