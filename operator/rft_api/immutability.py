"""Refuses changes of those fields of an RFTJob's spec that must not change after the run has started.

A run uses a snapshot of the spec, which is made when the run starts. The checks refuse most edits after the
start. An edit that gets past the checks has no effect on the run, and the status reports the edit. A new
snapshot is made only if a suspended run resumes with a changed spec.

The check in Python and the rules in CEL use the same tuples of fields.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from rft_api.cel import Cel, escape
from rft_api.job import MUTABLE_AFTER_START, MUTABLE_WHILE_SUSPENDED, RFTJobSpec
from rft_api.problems import Problem

_FIELDS = RFTJobSpec.model_fields
FROZEN = tuple(n for n in _FIELDS if n not in (*MUTABLE_AFTER_START, *MUTABLE_WHILE_SUSPENDED))
"""Fields of the spec that must not change after the run has started."""

_FOLLOWED = (*MUTABLE_WHILE_SUSPENDED, "stop")
"""Fields of the spec whose changes are applied when a suspended run resumes."""

NEVER = "cannot change after the start; set the old value again, or create another RFTJob"
ONLY_SUSPENDED = (
    "can change after the start only while phase is Suspended; set spec.suspend to true, and wait for this"
    " phase"
)


def problems(old: RFTJobSpec, new: RFTJobSpec, status: Mapping[str, Any]) -> list[Problem]:
    """Return a problem for each change of a job's spec from ``old`` to ``new`` that must be refused.

    ``status`` is the current status of the job. Before the start of the run, all changes are allowed. After
    the start, some fields may change at any time, some only in the phase ``Suspended``, and all others never.
    The operator sets this phase after the last pod has ended, so no pod runs in it.
    """
    if not status.get("startTime"):
        return []
    at_rest = old.suspend and status.get("phase") == "Suspended"
    return late_changes(old, new, pod_alive=not at_rest)


def late_changes(old: RFTJobSpec, new: RFTJobSpec, *, pod_alive: bool) -> list[Problem]:
    """Return a problem for each changed field of the spec whose change the started run ignores.

    The run was started with the spec ``old``, and the user has changed the spec to ``new``. ``pod_alive``
    says whether a pod of the run may still run. If so, the run also ignores changes of the fields in
    ``MUTABLE_WHILE_SUSPENDED``.
    """
    found = list(_changed(old, new, FROZEN, NEVER))
    if pod_alive:
        found += _changed(old, new, MUTABLE_WHILE_SUSPENDED, ONLY_SUSPENDED)
    return found


def follows(old: RFTJobSpec, new: RFTJobSpec) -> bool:
    """Return whether a suspended run that was started with the spec ``old`` resumes with the spec ``new``.

    If so, the operator makes a new snapshot of the spec for the run. Two conditions must hold:

    - The two specs differ in a field whose change is applied when a run resumes.
    - The two specs do not differ in a field that must not change after the start.
    """
    return not late_changes(old, new, pod_alive=False) and any(_changed(old, new, _FOLLOWED, ""))


def _changed(old: RFTJobSpec, new: RFTJobSpec, fields: tuple[str, ...], message: str) -> Iterator[Problem]:
    before, after = old.dump(), new.dump()
    for field in fields:
        name = _FIELDS[field].alias or field
        for path in _differences(before.get(name), after.get(name), f"spec.{name}"):
            yield Problem(path, message)


def _differences(old: object, new: object, path: str) -> Iterator[str]:
    """Yield the path of each place where two JSON values differ. ``path`` is the path of both values.

    In a list of items with names, the order of the items does not matter.
    """
    old, new = _by_name(old), _by_name(new)
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys((*old, *new)):
            yield from _differences(old.get(key), new.get(key), f"{path}.{key}")
    elif old != new:
        yield path


def _by_name(value: object) -> object:
    """Convert a list of objects with the key ``name`` to a dict of these objects by name.

    Two such dicts can be compared without regard to the order of the objects, which the API server ignores
    too. Return any other value unchanged.
    """
    if isinstance(value, list) and all(isinstance(item, dict) and "name" in item for item in value):
        return {f"{item['name']}": item for item in value}
    return value


def _unchanged(field: str) -> str:
    info = _FIELDS[field]
    name = escape(info.alias or field)
    same = f"self.spec.{name} == oldSelf.spec.{name}"
    if info.is_required() or info.get_default(call_default_factory=True, validated_data={}) is not None:
        return same
    return f"has(self.spec.{name}) == has(oldSelf.spec.{name}) && (!has(self.spec.{name}) || {same})"


_NOT_STARTED = "!has(oldSelf.status) || !has(oldSelf.status.startTime)"
_AT_REST = "oldSelf.spec.suspend && has(oldSelf.status.phase) && oldSelf.status.phase == 'Suspended'"


def _texts() -> Iterator[Cel]:
    """Yield the CEL rules by which the API server refuses changes of the spec after the start of a run.

    There is one rule for each field that must not change, and one for each field that may change only while
    the run is suspended. Each field has its own rule, so that the message can name the field.

    The rules are at the root of the schema, because only a rule at the root can read both spec and status.
    The API server also checks the rules when the status is updated, but such an update does not change the
    spec.
    """
    for field in FROZEN:
        message = f"spec.{_FIELDS[field].alias or field} {NEVER}"
        yield Cel("", f"{_NOT_STARTED} || ({_unchanged(field)})", message)
    for field in MUTABLE_WHILE_SUSPENDED:
        message = f"spec.{_FIELDS[field].alias or field} {ONLY_SUSPENDED}"
        yield Cel("", f"{_NOT_STARTED} || ({_AT_REST}) || ({_unchanged(field)})", message)


CEL = tuple(_texts())
