"""Estimates the steps, tokens, GPU-hours and cost of a run before it starts.

Values that are not known are left out. If the dataset is not known, the number of steps is known only with
``stop.maxSteps``. GPU-hours are known only for GPUs whose speed is in the catalogue of accelerators. All
results depend on the length of completions, which nobody knows before the run. So the GPU-hours are given for
two lengths: half of ``maxTokens``, which the trainer expects at first, and the full ``maxTokens``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from rft_api.job import RFTJobSpec
from rft_api.lifecycle import Evaluation
from rft_api.resources import Resources
from rft_api.status import Effective, Estimate
from rft_planner.balance import StepSeconds
from rft_planner.overlap import overlaps
from rft_planner.shapes import Shape
from rft_planner.speed import (
    COMPUTED,
    READ,
    Lengths,
    Speed,
    Update,
    busy_gpus,
    micro_batches,
    sampling_seconds,
    update_seconds,
)
from rft_planner.steps import MAX_HELD_OUT, first_expectation, prompts_per_step, steps_for

ASSUMED_PROMPT = 256
"""Assumed length of a prompt in tokens if the dataset is not known. It is a guess without a source, for a
question of some sentences with instructions."""


@dataclass(frozen=True)
class RowCounts:
    """What is known about a dataset before a run: the numbers of its rows, and the length of its prompts."""

    train: int
    """Number of training rows, all of which are used in one epoch."""
    evaluation: int
    """Number of held-out rows, or of rows in a separate evaluation dataset."""
    prompt_tokens: float
    """Mean length of a prompt in tokens, with the text of the chat template."""


class Batches(NamedTuple):
    """The numbers of prompts and steps of a run. A number is ``None`` if it is not known, for example because
    the dataset is not known.
    """

    per_step: int
    """Number of prompts in a full step."""
    per_epoch: int | None
    """Number of steps in one epoch."""
    steps: int | None
    """Number of steps of the whole run."""
    prompts: int | None
    """Number of prompts in all steps. A row counts once for each epoch in which it is used."""


class Found(NamedTuple):
    """The estimate of a run, and sentences for the user about the assumptions of the estimate."""

    estimate: Estimate
    notes: list[str]


def batches(spec: RFTJobSpec, rows: int | None, lengths: Lengths) -> Batches:
    """Calculate how many prompts one step has, and how many steps and prompts the whole run has.

    ``rows`` is the number of training rows, or None if it is not known. All prompts and completions are
    assumed to have the mean lengths in ``lengths``.
    """
    budget, rollouts = spec.training.batch_size_tokens, spec.sampling.num_rollouts
    prompts = prompts_per_step(lengths.prompt, lengths.completion, rollouts, budget)
    limit = spec.stop.max_steps if spec.stop is not None else None
    if rows is None:
        return Batches(prompts, None, limit, None if limit is None else limit * prompts)
    per_epoch = steps_for(rows, prompts)
    steps = per_epoch * spec.training.epochs
    steps = steps if limit is None else min(steps, limit)
    epochs, rest = divmod(steps, per_epoch)
    return Batches(min(prompts, rows), per_epoch, steps, epochs * rows + min(rows, rest * prompts))


def estimate(
    spec: RFTJobSpec, effective: Effective, shape: Shape | None, speed: Speed | None, rows: RowCounts | None
) -> Found:
    """Estimate the steps, tokens, times and cost of a run, and return them with notes about the assumptions.

    - ``effective``: the parameters of the run, also those that are derived
    - ``shape`` and ``speed``: the model, and the speed of the GPUs. If one is None, there are no times.
    - ``rows``: the numbers of rows and the length of prompts, or None if they are not known
    """
    usual = _usual(spec, rows, effective.max_context_length)
    laid_out = batches(spec, rows.train if rows is not None else None, usual)
    counts = _counts(spec, laid_out, usual)
    if shape is None or speed is None:
        return Found(Estimate(**counts), list(_notes(spec, effective, laid_out, rows, None, None)))
    step, hours = _times(spec, effective, shape, speed, rows, usual)
    _, most = _times(spec, effective, shape, speed, rows, usual.at_most(), refilled=True)
    resources = spec.resources or Resources()
    times: dict[str, Any] = {
        "sampling_seconds": about(step.sampling),
        "update_seconds": about(step.update),
        "seconds_per_step": about(step.whole(overlaps(spec, speed.apart))),
    }
    if hours is not None and most is not None:
        times |= {"gpu_hours": about(hours), "gpu_hours_if_longest": about(most)}
        if resources.price_per_gpu_hour is not None:
            times["cost"] = about(hours * resources.price_per_gpu_hour)
    return Found(Estimate(**counts, **times), list(_notes(spec, effective, laid_out, rows, hours, most)))


def step_seconds(
    spec: RFTJobSpec, effective: Effective, shape: Shape, speed: Speed, rows: RowCounts | None
) -> StepSeconds:
    """Return the expected seconds of sampling and of the update in one step.

    Completions are assumed to be half as long as their maximum, as the trainer assumes before the first
    rollout.
    """
    return _times(spec, effective, shape, speed, rows, _usual(spec, rows, effective.max_context_length))[0]


def prompts_of_step(spec: RFTJobSpec, rows: RowCounts | None) -> float:
    """Return the mean number of prompts in a step, over all steps of the run.

    The last step of an epoch may have fewer prompts than the others. If ``rows`` is None, the number is that
    of a full step.
    """
    laid_out = batches(spec, rows.train if rows is not None else None, _usual(spec, rows))
    return (laid_out.prompts or laid_out.per_step) / (laid_out.steps or 1)


def idle_share(spec: RFTJobSpec, speed: Speed, step: StepSeconds, rows: RowCounts | None) -> float:
    """Return the share of a step, from 0 to 1, in which a GPU is idle. The result is the mean of all GPUs.

    A GPU that only samples is idle while it waits for the end of training, and a GPU that only trains is idle
    while it waits for the end of sampling. A GPU is also idle while it waits for another GPU with more work
    of the same kind. ``step`` has the seconds of sampling and training in one step.
    """
    usual, rollouts = _usual(spec, rows), spec.sampling.num_rollouts
    prompts = prompts_of_step(spec, rows)
    sampling, training = busy_gpus(speed, prompts, micro_batches(speed, usual, prompts, rollouts))
    whole = step.whole(overlaps(spec, speed.apart))
    worked = sampling * step.sampling + training * step.update
    return max(0.0, 1 - worked / (speed.gpus * whole)) if whole else 0.0


def _usual(spec: RFTJobSpec, rows: RowCounts | None, context: int | None = None) -> Lengths:
    """Return the expected lengths of prompts and completions, and the maximum of a completion, in tokens.

    ``context`` is the maximum context length. A completion cannot be longer, also if a rollout has several
    turns. None: the context sets no limit.
    """
    longest = spec.rollout_tokens if context is None else min(spec.rollout_tokens, context)
    prompt = rows.prompt_tokens if rows is not None else ASSUMED_PROMPT
    at_once = spec.environment.concurrency if spec.environment is not None else None
    return Lengths(prompt, first_expectation(spec.rollout_tokens, context), longest, at_once)


def _times(
    spec: RFTJobSpec,
    effective: Effective,
    shape: Shape,
    speed: Speed,
    rows: RowCounts | None,
    lengths: Lengths,
    *,
    refilled: bool = False,
) -> tuple[StepSeconds, float | None]:
    """Return the seconds of one step, and the GPU-hours of the whole run with its evaluations.

    The GPU-hours are None if the number of steps is not known. ``refilled`` says whether to assume the most
    sampling: every step then samples as many prompts as ``refillRounds`` allows, but trains on one batch of
    these prompts only.
    """
    laid_out = batches(spec, rows.train if rows is not None else None, lengths)
    steps = laid_out.steps or 1
    prompts = laid_out.prompts or laid_out.per_step
    drawn = most_sampled(prompts, spec, effective, rows) if refilled else prompts
    completions = drawn * spec.sampling.num_rollouts
    attention_only = spec.training.lora_targets == "attention"
    adapter = shape.lora_parameters(spec.training.lora_rank, feed_forward=not attention_only)
    updates = min(spec.training.updates_per_batch, laid_out.per_step)
    measured = (updates - 1) / updates
    update = Update(spec.sampling.num_rollouts, adapter, effective.kl_beta > 0, measured)
    sampled = sampling_seconds(shape, speed, lengths, steps, drawn, completions)
    trained = update_seconds(shape, speed, lengths, prompts, update, steps)
    step = StepSeconds(sampled / steps, trained / steps)
    if laid_out.steps is None:
        return step, None
    held_out = rows.evaluation if rows is not None else MAX_HELD_OUT
    evaluated = evaluations(spec.evaluation, steps) * _evaluation_seconds(
        spec, shape, speed, lengths, held_out
    )
    overlapped = overlaps(spec, speed.apart)
    # Two phases never overlap with anything: sampling of the first batch, and the last update.
    alone = min(step) if overlapped else 0.0
    return step, speed.gpus * (steps * step.whole(overlapped) + alone + evaluated) / 3600


def most_sampled(prompts: int, spec: RFTJobSpec, effective: Effective, rows: RowCounts | None) -> int:
    """Return the largest number of prompts that a run may sample, if it trains on ``prompts`` prompts.

    It is larger than ``prompts`` because of refills: a refill samples new prompts in place of prompts whose
    rollouts all have the same reward. Every step is assumed to use all of its ``refill_rounds``. But a row is
    used only once in an epoch, so the number is at most that of all epochs together.
    """
    most = prompts * (1 + effective.refill_rounds)
    return most if rows is None else max(prompts, min(most, rows.train * spec.training.epochs))


def evaluations(evaluation: Evaluation, steps: int) -> int:
    """Return the number of held-out evaluations in a run of ``steps`` steps.

    There is one before the first step, one after the last step, and one after every ``every_steps`` steps
    between them. Return 0 if the job turns the evaluation off.
    """
    if evaluation.is_off:
        return 0
    between = (steps - 1) // evaluation.every_steps if evaluation.every_steps is not None else 0
    return 2 + between


def _evaluation_seconds(spec: RFTJobSpec, shape: Shape, speed: Speed, lengths: Lengths, rows: int) -> float:
    samples = spec.evaluation.samples if spec.evaluation.temperature > 0 else 1
    return sampling_seconds(shape, speed, lengths, 1, rows, rows * samples) if rows else 0.0


def _counts(spec: RFTJobSpec, laid_out: Batches, lengths: Lengths) -> dict[str, Any]:
    """Return the numbers of steps, prompts and tokens, by the name of their field in ``Estimate``.

    Unknown numbers are left out.
    """
    completions = None if laid_out.prompts is None else laid_out.prompts * spec.sampling.num_rollouts
    fields = {
        "steps": laid_out.steps,
        "steps_per_epoch": laid_out.per_epoch,
        "prompts_per_step": laid_out.per_step,
        "prompt_tokens": None if completions is None else round(completions * lengths.prompt),
        "completion_tokens": None if completions is None else round(completions * lengths.completion),
    }
    return {name: value for name, value in fields.items() if value is not None}


def _half(spec: RFTJobSpec) -> str:
    if spec.environment is None:
        return "completions are half of maxTokens long"
    return f"rollouts sample half of {spec.rollout_tokens} tokens in all their turns"


def about(value: float) -> float:
    """Round a number to two significant digits, because estimates are not more precise."""
    return float(f"{value:.2g}")


def _notes(
    spec: RFTJobSpec,
    effective: Effective,
    laid_out: Batches,
    rows: RowCounts | None,
    hours: float | None,
    most: float | None,
) -> Iterator[str]:
    """Yield sentences for the user about the assumptions of the estimate.

    ``hours`` and ``most`` are the GPU-hours with expected and with longest completions, or None if not known.
    """
    if laid_out.steps is None:
        yield (
            "steps, tokens and hours are not estimated: the number of rows is not known, and stop.maxSteps is"
            " not set"
        )
        return
    if rows is None:
        yield (
            f"at most {laid_out.steps} steps, by stop.maxSteps; the rows are not known, and prompts are"
            f" assumed to have {ASSUMED_PROMPT} tokens"
        )
    else:
        whole = (laid_out.per_epoch or 0) * spec.training.epochs
        cut = f"{laid_out.steps} steps, by stop.maxSteps, of " if laid_out.steps < whole else ""
        yield (f"{cut}about {whole} steps, if {_half(spec)} and prompts have {rows.prompt_tokens:.0f} tokens")
    if spec.environment is not None:
        yield (
            f"a rollout has up to {spec.environment.max_turns} turns with {spec.rollout_tokens} sampled"
            f" tokens in all, and {spec.environment.concurrency} rollouts are played at once; the time of the"
            " environment and the tokens of its answers are not known, and not counted"
        )
    if effective.refill_rounds:
        yield (
            f"refills are not counted: with refillRounds {effective.refill_rounds} a step samples up to"
            f" {1 + effective.refill_rounds} times as many prompts, so the run may have fewer steps"
        )
    if hours is not None and most is not None:
        tokens = min(spec.rollout_tokens, effective.max_context_length)
        longest = f"{about(most):g} if completions are {tokens} tokens long"
        if effective.refill_rounds:
            longest += " and all refills are needed"
        yield (
            f"about {about(hours):g} GPU-hours, {longest}; not measured: programs are assumed to reach"
            f" {COMPUTED:.0%} of the GPUs' bf16 rate and {READ:.0%} of their memory bandwidth"
        )
        limit = spec.stop.max_gpu_hours if spec.stop is not None else None
        if limit is not None and most > limit:
            yield f"spec.stop.maxGpuHours: {limit:g} may end the run earlier"
