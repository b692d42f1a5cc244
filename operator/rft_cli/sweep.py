"""``rft plan --sweep``: the same job with other values of one field, side by side."""

import copy
import re
from typing import Any, NamedTuple

from rich.table import Table

from rft_api.fields import Field, UnknownField, find
from rft_api.job import RFTJob
from rft_api.loader import UnreadableManifest, load_documents
from rft_api.status import Estimate, Plan
from rft_api.validation import check
from rft_cli.console import INVALID, UNREADABLE, UserError
from rft_cli.views import NONE
from rft_planner.accelerators import ACCELERATORS
from rft_planner.plan import Unplannable

ACCELERATOR = "spec.resources.accelerator.name"
FEW = 16
"""Whole numbers of a range that are all tried where no values are named."""
COLUMNS = ("GPUS", "TRAIN", "SAMPLE", "GIB TO TRAIN", "GIB TO SAMPLE", "STEPS", "GPU-HOURS", "COST")
WHY_NOT = "WHY NOT"


class Sweep(NamedTuple):
    """One field and the jobs that differ in it alone."""

    path: str
    """With ``spec.`` in front."""
    jobs: list[tuple[Any, RFTJob]]
    """Each with its value."""


class Line(NamedTuple):
    """What one value leads to: a plan, or why there is none."""

    value: Any
    outcome: Plan | Unplannable


def sweep_of(text: str, job: RFTJob) -> Sweep:
    """Return what ``FIELD`` or ``FIELD=v1,v2`` means for a job; without values, the usual ones.

    Raises:
        UserError: no such field, no usual values, or one that the field or a rule across fields refuses.
    """
    name, _, listed = text.partition("=")
    path = ACCELERATOR if name.strip() == "accelerator" else _scalar(name)
    if listed:
        return Sweep(path, [(value, _changed(job, path, value)) for value in _values(listed)])
    usual = [(value, made) for value in _usual(path, job) if (made := _try(job, path, value)[0]) is not None]
    if not usual:
        raise UserError(f"--sweep {name}: has no usual values; name them: --sweep {name}=v1,v2", UNREADABLE)
    return Sweep(path, usual)


def _scalar(name: str) -> str:
    try:
        field = find(name)
    except UnknownField as error:
        raise UserError(f"--sweep: {error}", UNREADABLE) from error
    if not field.path.startswith("spec.") or "[]" in field.path or field.type not in SCALARS:
        raise UserError(f"--sweep {field.path}: is not a number, text or switch of the spec", UNREADABLE)
    return field.path


SCALARS = ("integer", "number", "string", "boolean")


def _values(listed: str) -> list[Any]:
    """Read values as they would stand in a manifest."""
    try:
        return [load_documents(f"value: {text}", "--sweep")[0].body["value"] for text in listed.split(",")]
    except UnreadableManifest as error:
        raise UserError(str(error), UNREADABLE) from error


def _usual(path: str, job: RFTJob) -> list[Any]:
    """Return the values to try: all of a short list or range, else halves and doubles of the job's own."""
    if path == ACCELERATOR:
        return list(ACCELERATORS)
    field = find(path)
    if field.choices or field.type != "integer":
        return list(field.choices)
    if field.maximum is not None and field.maximum - (field.minimum or 0) < FEW:
        return list(range(round(field.minimum or 0), round(field.maximum) + 1))
    own = _own(path, field, job)
    return [value for value in (own // 4, own // 2, own, own * 2, own * 4) if value >= 1] if own else []


def _own(path: str, field: Field, job: RFTJob) -> int:
    """Return the job's value, 0 where it has none; an absent context is as long as a batch at most."""
    value: Any = job.dump()
    for key in path.split("."):
        value = value.get(key, {})
    if path == "spec.training.maxContextLength" and not value:
        return max(4096, 2 * job.spec.sampling.max_tokens)
    return value if isinstance(value, int) else int(field.default or 0)


def _changed(job: RFTJob, path: str, value: Any) -> RFTJob:
    made, problems = _try(job, path, value)
    if made is None:
        raise UserError(f"--sweep: {problems}", INVALID)
    return made


def _try(job: RFTJob, path: str, value: Any) -> tuple[RFTJob | None, str]:
    """Return the job with another value, or what is wrong with it."""
    made, problems = check(with_value(job.dump(), path, value))
    return made, "; ".join(map(str, problems))


def with_value(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return a copy of a job with ``value`` at ``path``.

    Another kind of GPU has its own memory, and what it takes is the question: its count is not kept either.
    """
    changed = copy.deepcopy(document)
    if path == ACCELERATOR:
        changed["spec"].setdefault("resources", {}).pop("gpus", None)
        changed["spec"]["resources"]["accelerator"] = {}
    *parents, last = path.split(".")
    place = changed
    for key in parents:
        place = place.setdefault(key, {})
    place[last] = value
    return changed


def table(path: str, lines: list[Line]) -> Table:
    """Return a line per value: GPUs, how they are divided, GiB on each of a role's, steps, hours, cost."""
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
        # The sentences after the first say what to change, which a comparison is about anyway.
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
    """Return the GiB that a role takes of each of its GPUs; a dash where they were not summed."""
    parts = [part.mebibytes for part in plan.memory_parts or [] if part.name.startswith(role)]
    return f"{sum(parts) / 1024:.1f}" if parts else NONE


def entry(line: Line) -> dict[str, Any]:
    """Return a line for machines: the value beside the plan's fields, ``gpus`` null where there is none."""
    if isinstance(line.outcome, Unplannable):
        refused = {"reason": line.outcome.reason, "message": str(line.outcome)}
        return {"value": line.value, "gpus": None, "refused": refused}
    return {"value": line.value, **without_seed(line.outcome)}


def without_seed(plan: Plan) -> dict[str, Any]:
    """Return a plan as JSON, without the seed that only a stored job has."""
    dumped = plan.dump()
    dumped.get("effective", {}).pop("seed", None)
    return dumped
