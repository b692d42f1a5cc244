"""Formats a plan as text, and the plans of a sweep (``rft plan --sweep``) as a table or as JSON objects."""

import re
from collections.abc import Iterator
from typing import Any

from rich.table import Table

from rft_api.status import Estimate, Plan
from rft_cli.local.sweep import ACCELERATOR, Line
from rft_cli.render.views import NONE, duration
from rft_planner.plan import Unplannable

COLUMNS = ("GPUS", "TRAIN", "SAMPLE", "GIB TO TRAIN", "GIB TO SAMPLE", "STEPS", "GPU-HOURS", "COST")
WHY_NOT = "WHY NOT"


def text(made: Plan) -> Iterator[str]:
    """Yield lines of text about a plan: its resources, its estimate, its notes, and the parts of its memory.

    Fields that the job inherits from the platform's defaults are listed too.
    """
    yield f"GPUs    {made.gpus}" + (f" × {made.accelerator}" if made.accelerator else "")
    yield f"CPU     {made.cpu}" + (f", limit {made.cpu_limit}" if made.cpu_limit else "")
    yield f"memory  {made.memory}"
    if made.ephemeral_storage is not None:
        yield f"disk    {made.ephemeral_storage} of the node, limit {made.ephemeral_storage_limit}"
    if made.estimate is not None:
        yield from expected(made.estimate)
    yield from (f"- {note}" for note in made.notes or [])
    yield from inherited(made)
    yield from (f"  {part.mebibytes / 1024:6.1f} GiB  {part.name}" for part in made.memory_parts or [])


def inherited(made: Plan) -> Iterator[str]:
    """Yield a line of text for each field that the job of a plan inherits from the platform's defaults."""
    for each in (made.effective.inherited if made.effective is not None else None) or []:
        yield f"= {each.path}: {each.value}, by {each.from_}"


def _together(estimate: Estimate) -> bool:
    """Return whether sampling and training overlap in an estimate.

    This is so if a step takes less than 95 % of the sum of the seconds for sampling and for training.
    """
    phases = (estimate.sampling_seconds or 0) + (estimate.update_seconds or 0)
    return (estimate.seconds_per_step or 0) < 0.95 * phases


def expected(estimate: Estimate) -> Iterator[str]:
    """Yield lines of text about the expected steps, tokens, time and cost of a run.

    Unknown values are left out.
    """
    if estimate.steps is not None:
        yield f"steps   about {estimate.steps}, {estimate.prompts_per_step} prompts each"
    if estimate.prompt_tokens is not None and estimate.completion_tokens is not None:
        prompts, completions = _short(estimate.prompt_tokens), _short(estimate.completion_tokens)
        yield f"tokens  about {prompts} of prompts, {completions} of completions"
    if estimate.seconds_per_step is not None:
        sampling, update = duration(estimate.sampling_seconds), duration(estimate.update_seconds)
        together = _together(estimate)
        yield (
            f"a step  about {duration(estimate.seconds_per_step)}: {sampling} sampling,"
            f" {update} training{', at the same time' if together else ''}"
        )
    if estimate.gpu_hours is not None:
        longest = f"{estimate.gpu_hours_if_longest:g} with the longest completions"
        yield f"hours   about {estimate.gpu_hours:g} GPU-hours, {longest}"
    if estimate.cost is not None:
        yield f"cost    about {estimate.cost:g}"


def _short(tokens: int) -> str:
    """Return a number of tokens as text with at most three digits: ``950``, ``57.9k``, ``1.02M``."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if tokens >= 0.9995 * size:  # 999,999 is shown as 1M
            return f"{tokens / size:.3g}{letter}"
    return str(tokens)


def table(path: str, lines: list[Line]) -> Table:
    """Return a table that compares plans of a job with different values of one field. Each value has a line.

    ``path`` is the path of the field. The columns are the value, and the numbers of its plan in ``COLUMNS``.
    If no plan can be made with a value, a last column says why.
    """
    name = "accelerator" if path == ACCELERATOR else path.rpartition(".")[2]
    refused = [WHY_NOT] if any(isinstance(line.outcome, Unplannable) for line in lines) else []
    made = Table(box=None, pad_edge=False)
    for column in (name, *COLUMNS, *refused):
        made.add_column(column, no_wrap=column != WHY_NOT)
    for line in lines:
        made.add_row(str(line.value), *_cells(line.outcome))
    return made


def _cells(outcome: Plan | Unplannable) -> list[str]:
    if isinstance(outcome, Unplannable):
        # Only the first sentence: the others advise what to change, which is not needed in a comparison.
        return [*[NONE] * len(COLUMNS), re.split(r"(?<!e\.g)\. ", str(outcome))[0]]
    estimate = outcome.estimate or Estimate()
    return [
        str(outcome.gpus),
        str(outcome.trainer_gpus or NONE),
        str(outcome.sampler_gpus or NONE),
        gib_of(outcome, "training"),
        gib_of(outcome, "sampling"),
        *(_about(number) for number in (estimate.steps, estimate.gpu_hours, estimate.cost)),
    ]


def _about(number: float | None) -> str:
    return NONE if number is None else f"~{number:g}"


def gib_of(plan: Plan, role: str) -> str:
    """Return the memory that a plan expects for training or for sampling, as text: GiB per GPU, such as 61.3.

    ``role`` is ``training`` or ``sampling``. The text is a dash if the plan has no memory for this role.
    """
    parts = [part.mebibytes for part in plan.memory_parts or [] if part.name.startswith(role)]
    return f"{sum(parts) / 1024:.1f}" if parts else NONE


def entry(line: Line) -> dict[str, Any]:
    """Return one result of a sweep as an object for JSON or YAML: a value of the field, and its plan.

    If no plan can be made with the value, ``gpus`` is null, and ``refused`` has the reason and the message.
    """
    if isinstance(line.outcome, Unplannable):
        refused = {"reason": line.outcome.reason, "message": str(line.outcome)}
        return {"value": line.value, "gpus": None, "refused": refused}
    return {"value": line.value, **without_seed(line.outcome)}


def without_seed(plan: Plan) -> dict[str, Any]:
    """Return a plan as a JSON object without the seed.

    The seed is left out because it is derived from the job's UID, which a job gets only in the cluster.
    """
    dumped = plan.dump()
    dumped.get("effective", {}).pop("seed", None)
    return dumped
