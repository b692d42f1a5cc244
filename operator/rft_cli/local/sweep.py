"""Makes copies of a job that differ only in the value of one field, for ``rft plan --sweep``, which compares
the plans of the copies.
"""

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
"""Maximum number of whole numbers in the range of a field for which a sweep tries all of them."""


class Sweep(NamedTuple):
    """A comparison of values for one field of a job: copies of the job that differ only in this field."""

    path: str
    """The path of the field, which begins with ``spec.``."""
    jobs: list[tuple[Any, RFTJob]]
    """Pairs of a value of the field and the copy of the job with this value."""


class Line(NamedTuple):
    """The result for one value of the compared field: the plan of the job with this value, or the error that
    says why the job cannot be planned.
    """

    value: Any
    outcome: Plan | Unplannable


def sweep_of(text: str, job: RFTJob) -> Sweep:
    """Parse the value of the option ``--sweep`` and return the copies of ``job`` to compare.

    ``text`` is ``FIELD=v1,v2``, or only ``FIELD``, which means the usual values of the field.

    Raises:
        UserError: if the field does not exist or is no single value, if a value is not valid for the job, or
            if no values are given and the field has no usual ones.
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
    """Parse a list of values with commas between them, such as ``1,2``. Each value is parsed as YAML."""
    try:
        return [load_documents(f"value: {text}", "--sweep")[0].body["value"] for text in listed.split(",")]
    except UnreadableManifest as error:
        raise UserError(str(error), UNREADABLE) from error


def _usual(path: str, job: RFTJob) -> list[Any]:
    """Return the values that a sweep tries if the user gives none. They depend on the field at ``path``:

    - the kind of GPU: all kinds that the planner knows.
    - a field with choices: all choices.
    - a whole number with a range of at most ``FEW`` numbers: all these numbers.
    - another whole number: 1/4, 1/2, 1, 2 and 4 times the job's value. Values below 1 are left out.
    - any other field: no values.
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
    """Return the job's value of a field of whole numbers. If the job does not set the field, return the
    default, or 0 if there is no default.

    For ``spec.training.maxContextLength``, the default is the value that the planner uses, in tokens.
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
    """Make a copy of the job in which the field at ``path`` has ``value``, and validate it.

    Return the copy, or None if it is not valid, and the problems as one text, which is empty if the copy is
    valid.
    """
    made, problems = check(with_value(job.dump(), path, value))
    return made, "; ".join(map(str, problems))


def with_value(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return a copy of the job ``document`` (a JSON object) in which the field at ``path`` has ``value``. The
    copy is not validated.

    If ``path`` is ``ACCELERATOR`` (the kind of GPU), the copy has no number of GPUs and no other fields of
    the accelerator, such as its memory. The plan then decides them.
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
