"""What of a spec may change once its run has started.

The same tuples of fields make the check in Python and its texts in CEL. A run goes on with the snapshot it
was started with, so an edit that none of the gates refused changes nothing and is told. The snapshot is made
anew only when a suspended run goes on with what may be changed meanwhile.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from rft_api.cel import Cel, escape
from rft_api.job import MUTABLE_AFTER_START, MUTABLE_WHILE_SUSPENDED, RFTJobSpec
from rft_api.problems import Problem

_FIELDS = RFTJobSpec.model_fields
FROZEN = tuple(n for n in _FIELDS if n not in (*MUTABLE_AFTER_START, *MUTABLE_WHILE_SUSPENDED))
"""Fields of the spec that never change after the start."""

_FOLLOWED = (*MUTABLE_WHILE_SUSPENDED, "stop")
"""Fields of the spec that say something to the next trainer."""

NEVER = "cannot change after the start; put it back, or create another RFTJob"
ONLY_SUSPENDED = "can change after the start only while phase is Suspended; set spec.suspend and wait for it"


def problems(old: RFTJobSpec, new: RFTJobSpec, status: Mapping[str, Any]) -> list[Problem]:
    """Return what an update may not do, given the ``status`` it finds.

    Pods are not seen here: the operator says ``Suspended`` when none is alive any more.
    """
    if not status.get("startTime"):
        return []
    at_rest = old.suspend and status.get("phase") == "Suspended"
    return late_changes(old, new, pod_alive=not at_rest)


def late_changes(old: RFTJobSpec, new: RFTJobSpec, *, pod_alive: bool) -> list[Problem]:
    """Return what of ``new`` came too late for the run that was started with ``old``."""
    found = list(_changed(old, new, FROZEN, NEVER))
    if pod_alive:
        found += _changed(old, new, MUTABLE_WHILE_SUSPENDED, ONLY_SUSPENDED)
    return found


def follows(old: RFTJobSpec, new: RFTJobSpec) -> bool:
    """Return whether a run at rest that began with ``old`` goes on with ``new``.

    It does where they differ in what a run can follow, and in nothing that is frozen.
    """
    return not late_changes(old, new, pod_alive=False) and any(_changed(old, new, _FOLLOWED, ""))


def _changed(old: RFTJobSpec, new: RFTJobSpec, fields: tuple[str, ...], message: str) -> Iterator[Problem]:
    before, after = old.dump(), new.dump()
    for field in fields:
        name = _FIELDS[field].alias or field
        for path in _differences(before.get(name), after.get(name), f"spec.{name}"):
            yield Problem(path, message)


def _differences(old: object, new: object, path: str) -> Iterator[str]:
    """Yield the paths at which two JSON values differ."""
    old, new = _by_name(old), _by_name(new)
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys((*old, *new)):
            yield from _differences(old.get(key), new.get(key), f"{path}.{key}")
    elif old != new:
        yield path


def _by_name(value: object) -> object:
    """Return a list that is a map by name as that map: its order says nothing, to the server either."""
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
    """Yield a text for each field, so that the message can name it.

    They stand at the root, which alone sees spec and status. Who writes the status does not change the
    spec, so they hold there.
    """
    for field in FROZEN:
        message = f"spec.{_FIELDS[field].alias or field} {NEVER}"
        yield Cel("", f"{_NOT_STARTED} || ({_unchanged(field)})", message)
    for field in MUTABLE_WHILE_SUSPENDED:
        message = f"spec.{_FIELDS[field].alias or field} {ONLY_SUSPENDED}"
        yield Cel("", f"{_NOT_STARTED} || ({_AT_REST}) || ({_unchanged(field)})", message)


CEL = tuple(_texts())
