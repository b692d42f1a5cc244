"""``metrics.jsonl``: one record of each step, in order."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from rft_run.record import Record


class UnreadableSteps(ValueError):
    """A line of ``metrics.jsonl`` is not the record of a step. The message has the line's number."""


class StepRecord(Record):
    """The numbers of one step. None: it was not computed, or an older release wrote the record."""

    step: int
    reward: float | None = None
    """Mean reward of the graded rollouts."""
    reward_std: float | None = None
    graders: dict[str, float] = Field(default_factory=dict)
    """Mean score by grader."""
    loss: float | None = None
    kl: float | None = None
    """Mean KL (k3) to the reference, per token."""
    entropy: float | None = None
    """Mean entropy of the sampling distribution, in nats."""
    clip_fraction: float | None = None
    updates: int | None = None
    """Optimizer steps made: fewer than ``updatesPerBatch`` where groups are fewer, or give no gradient."""
    grad_norm: float | None = None
    """Norm of the gradient before clipping."""
    mismatch_kl: float | None = None
    """KL between trainer and sampler, per token."""
    mismatch_mean_abs: float | None = None
    mismatch_bounded_fraction: float | None = None
    """Share of tokens whose weight for the mismatch of trainer and sampler was bounded."""
    staleness: int | None = None
    """Adapter versions between the weights that sampled the batch and those that were trained."""
    outside_filter_tokens: int | None = None
    """Number of sampled tokens that top-k and top-p remove if applied to the trainer's probabilities."""
    truncated_fraction: float | None = None
    zero_variance_fraction: float | None = None
    completion_tokens: float | None = None
    """Mean length of the graded completions."""
    groups: int | None = None
    rollouts: int | None = None
    dropped_groups: int | None = None
    refilled_groups: int | None = None
    """Groups that were sampled in place of groups with equal rewards."""
    overlong_penalty: float | None = None
    """Mean of what was taken from the rewards for length; ``reward`` is before it."""
    forward_tokens: int | None = None
    """Tokens of all forward passes of the update, padding included."""
    learning_rate: float | None = None
    epoch: int | None = None
    adapter_version: int | None = None
    tokens_per_second: float | None = None
    """Sampled tokens per second of sampling."""
    step_seconds: float | None = None
    phases: dict[str, float] = Field(default_factory=dict)
    """Seconds of each phase of the step, by the names of ``PhaseSeconds``."""
    attempt: int | None = None
    time: str | None = None
    """End of the step, RFC 3339."""


def read_steps(path: Path, *, until_broken: bool = False) -> list[StepRecord]:
    """Return the records of all steps; an empty list where there is no file.

    A last line without a newline is left out: it is still being written, or the writer was killed. For any
    other invalid line UnreadableSteps is raised, or with ``until_broken`` the records before this line are
    returned. Raises OSError.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    records = []
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        try:
            records.append(StepRecord.from_line(line))
        except ValueError as error:
            if until_broken:
                break
            raise UnreadableSteps(f"{path}: line {number}: is not the record of a step") from error
    return records


def as_lines(records: Sequence[StepRecord]) -> bytes:
    """Return the content of ``metrics.jsonl``."""
    return "".join(record.as_line() for record in records).encode()
