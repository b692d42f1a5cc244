"""Reads ``metrics.jsonl``, which has a record with the metrics of each training step, in order."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, ValidationError

from rft_run import run_files
from rft_run.record import Record, Whole


class UnreadableSteps(ValueError):
    """This release cannot read ``metrics.jsonl``. The message says why, and in which line."""


class StepRecord(Record):
    """The metrics of one training step. A metric is None if it was not computed, or if an older release wrote
    the record.
    """

    step: Whole
    reward: float | None = None
    """Mean reward of the graded rollouts of the step."""
    reward_std: float | None = None
    graders: dict[str, float] = Field(default_factory=dict)
    """Mean score of each grader, by the name of the grader."""
    forged_replies: int | None = None
    """Number of forged replies in the step: a program other than the grader's worker wrote them. The grader
    process refused them."""
    loss: float | None = None
    kl: float | None = None
    """Mean KL of the policy to the reference, per token, in nats, by Schulman's estimate k3."""
    entropy: float | None = None
    """Mean entropy of the sampling distribution per token, in nats."""
    clip_fraction: float | None = None
    updates: Whole | None = None
    """Number of optimizer steps that were made. It is below ``updatesPerBatch`` if the batch has too few
    groups, or groups without a gradient."""
    grad_norm: float | None = None
    """Norm of the gradient before clipping."""
    mismatch_kl: float | None = None
    """Mean KL between the probabilities of trainer and sampler, per token, in nats, by the estimate k3."""
    mismatch_mean_abs: float | None = None
    mismatch_bounded_fraction: float | None = None
    """Share of the tokens whose mismatch weight was changed. A weight outside its limits is set to the limit.
    If the mean weight of a sequence is outside its limits, all weights of the sequence are set to 0.

    The mismatch weight is the token's probability in the trainer divided by that in the sampler."""
    staleness: Whole | None = None
    """Age of the weights that sampled the batch, in adapter versions. 0: the trained weights sampled the
    batch themselves."""
    outside_filter_tokens: Whole | None = None
    """Number of sampled tokens that top-k and top-p would exclude from sampling, if they were applied to the
    trainer's probabilities in place of the sampler's."""
    truncated_fraction: float | None = None
    zero_variance_fraction: float | None = None
    completion_tokens: float | None = None
    """Mean length of the completions that have a reward, in tokens."""
    groups: Whole | None = None
    rollouts: Whole | None = None
    dropped_groups: Whole | None = None
    refilled_groups: Whole | None = None
    """Number of groups that were sampled in place of groups whose rewards are all equal."""
    overlong_penalty: float | None = None
    """Mean penalty for long completions. It is not subtracted from ``reward`` in this record."""
    turns: float | None = None
    """Mean number of the model's turns in a rollout. None if the job has no environment."""
    tool_calls: float | None = None
    """Mean number of tool calls in a rollout."""
    tool_errors: Whole | None = None
    """Number of failed or unreadable tool calls in the step."""
    limited_fraction: float | None = None
    """Share of the rollouts that a limit of the environment ended, such as ``maxTurns``."""
    environment_errors: Whole | None = None
    """Number of rollouts in the step that a failure of the environment ended."""
    refused_requests: Whole | None = None
    """Number of requests for the step's rollouts that the endpoint of agents refused. For example, a request
    had the token of another rollout."""
    environment_fraction: float | None = None
    """Share of the rollouts' time that was spent waiting for the environment."""
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


def read_steps(path: Path, *, until_broken: bool = False) -> list[StepRecord]:
    """Return the records of all steps, or an empty list if there is no file.

    If the last line has no newline, it is ignored: the trainer still writes this line, or was killed.

    Raises OSError. Raises UnreadableSteps if the file is too large or not a regular file, or if a line is
    invalid. With ``until_broken`` an invalid line is no error: the records before this line are returned.
    """
    records: list[StepRecord] = []
    try:
        with run_files.opened(path) as file:
            for line in run_files.lines(file, run_files.METRICS_BYTES):
                if not line.endswith(b"\n"):
                    break
                if len(records) == run_files.METRICS_LINES:
                    raise run_files.UnreadableFile(
                        f"has more than {len(records):,} steps, the most that are read"
                    )
                records.append(_step(line, len(records) + 1))
    except FileNotFoundError:
        return []
    except ValueError as error:
        if not until_broken or isinstance(error, run_files.UnreadableFile):
            raise UnreadableSteps(f"{path}: {error}") from error
    return records


def _step(line: bytes, number: int) -> StepRecord:
    try:
        return StepRecord.from_line(line.decode(errors="replace"))
    except ValidationError as error:
        raise ValueError(f"line {number}: is not the record of a step") from error


def as_lines(records: Sequence[StepRecord]) -> bytes:
    """Return ``records`` as the content of a file ``metrics.jsonl``."""
    return "".join(record.as_line() for record in records).encode()
