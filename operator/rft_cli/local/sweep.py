"""Makes copies of a job that differ in one field. ``rft plan --sweep`` compares their plans."""

import copy
from typing import Any, NamedTuple

from rft_api.fields import Field, UnknownField, find
from rft_api.job import RFTJob
from rft_api.loader import UnreadableManifest, load_documents
from rft_api.status import Plan
from rft_api.validation import check
from rft_cli.errors import INVALID, UNREADABLE, UserError
from rft_planner.accelerators import ACCELERATORS
from rft_planner.plan import Unplannable

ACCELERATOR = "spec.resources.accelerator.name"
FEW = 16
"""If the range of a field has at most this many whole numbers, the sweep tries all of them."""


class Sweep(NamedTuple):
    """A field, and copies of the job that differ only in this field."""

    path: str
    """The path of the field, which begins with ``spec.``."""
    jobs: list[tuple[Any, RFTJob]]
    """Each value of the field with its copy of the job."""


class Line(NamedTuple):
    """The result for one value of the swept field: a plan, or the reason why there is none."""

    value: Any
    outcome: Plan | Unplannable


def sweep_of(text: str, job: RFTJob) -> Sweep:
    """Return the sweep that the option ``--sweep`` asks for: ``FIELD=v1,v2``, or only ``FIELD``.

    Without values, the sweep has the usual values of the field.

    Raises:
        UserError: if the field does not exist, has no usual values, or if a value is not valid for the job.
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
        raise UserError(
            f"--sweep {field.path}: is no field of the spec whose value is a number, a text, true or false",
            UNREADABLE,
        )
    return field.path


SCALARS = ("integer", "number", "string", "boolean")


def _values(listed: str) -> list[Any]:
    """Parse values with commas between them. Each value is parsed as YAML, as in a manifest."""
    try:
        return [load_documents(f"value: {text}", "--sweep")[0].body["value"] for text in listed.split(",")]
    except UnreadableManifest as error:
        raise UserError(str(error), UNREADABLE) from error


def _usual(path: str, job: RFTJob) -> list[Any]:
    """Return the usual values of a field:

    - the kind of GPU: all kinds that the planner knows.
    - a field with choices: all choices.
    - a whole number with a range of at most ``FEW`` numbers: all of them.
    - another whole number: 1/4, 1/2, 1, 2 and 4 times the job's value. Values below 1 are left out.
    - any other field: none.
    """
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
    """Return the job's value of a field. If the job has none, return the default, or 0 if there is no
    default.

    The default of ``spec.training.maxContextLength`` is the one that the planner uses, in tokens.
    """
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
    """Return a copy of the job with ``value`` at ``path``, or None if this copy is not valid.

    Also return the problems of the copy as one text, which is empty if the copy is valid.
    """
    made, problems = check(with_value(job.dump(), path, value))
    return made, "; ".join(map(str, problems))


def with_value(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return a copy of a job with ``value`` at ``path``.

    If ``path`` is ``ACCELERATOR``, the kind of GPU, the copy has neither the number of GPUs nor the other
    fields of the accelerator, such as its memory. So the plan decides these.
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
