"""Makes the manifest of a new RFTJob from an earlier one with some values changed, for ``rft rerun``."""

import copy
import itertools
import re
from collections.abc import Mapping
from typing import Any

from rft_advice.suggest import experiment_name, variant
from rft_api.fields import UnknownField, find

_IN_A_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,10}[A-Za-z0-9])?")
"""Matches a short value of a field that can be used in the name of the new RFTJob."""
_PART = re.compile(r"([A-Za-z]\w*)((?:\[\d+\])*)", re.ASCII)


class NoSuchItem(LookupError):
    """The user's path to a field of a spec, such as ``graders[5].weight``, names a list item that does not
    exist, or has a wrong form. The message says which items exist, or how to write the path.
    """


def rerun(document: Mapping[str, Any], values: Mapping[str, Any], name: str | None = None) -> dict[str, Any]:
    """Return the manifest of a new RFTJob that is like the one in ``document``, but with other values. An
    annotation names the job in ``document`` as its baseline. The new manifest is not validated.

    - ``values``: the new values. The keys are paths, such as ``training.loraRank`` or ``graders[0].weight``.
    - ``name``: the name of the new job. If None, it consists of the old name, the first changed field, and
      the new value of this field. If more fields change, ``and`` and their number are added.

    Raises UnknownField if no field has a path in ``values``, or NoSuchItem if the list item does not exist.
    """
    baseline = str(document["metadata"]["name"])
    spec = copy.deepcopy(dict(document["spec"]))
    for path, value in values.items():
        _assign(spec, path, value)
    return variant(document, name or _name(baseline, values), spec)


def _name(baseline: str, values: Mapping[str, Any]) -> str:
    if not values:
        return experiment_name(baseline, "again", 1)
    (path, value), *others = values.items()
    short = value if isinstance(value, int | float) or _IN_A_NAME.fullmatch(str(value)) else "new"
    field = re.sub(r"[^A-Za-z0-9]", "", path.rpartition(".")[2])
    name = experiment_name(baseline, field, short)
    return experiment_name(name, "and", len(others)) if others else name


def _assign(spec: dict[str, Any], path: str, value: Any) -> None:
    """Set the field at ``path`` of ``spec`` to ``value``, in place. Objects on the path that are missing are
    added.

    Raises UnknownField if no field of the spec has this path, or NoSuchItem if a list item on the path does
    not exist.
    """
    if not find(path).path.startswith("spec"):
        raise UnknownField(path, None)
    within = path.removeprefix("spec.")
    keys: list[str | int] = []
    for part in within.split("."):
        found = _PART.fullmatch(part)
        if found is None:
            raise NoSuchItem(
                f"{path}: {part!r} is not a field; write it like training.loraRank or graders[0].weight"
            )
        keys += [found[1], *map(int, re.findall(r"\d+", found[2]))]
    place: Any = spec
    for key, following in itertools.pairwise(keys):
        place = _inner(place, key, following, path)
    if isinstance(place, list) or isinstance(keys[-1], int):
        _require(place, keys[-1], path)
    place[keys[-1]] = value


def _inner(place: Any, key: str | int, following: str | int, path: str) -> Any:
    if isinstance(key, int) or isinstance(place, list):
        _require(place, key, path)
        return place[key]
    if place.get(key) is None:
        place[key] = [] if isinstance(following, int) else {}
    return place[key]


def _require(place: Any, key: str | int, path: str) -> None:
    """Raise NoSuchItem if ``place`` is not a list, or if ``key`` is not the index of one of its items.

    ``place`` is a part of the spec, ``key`` is the next part of ``path``, and ``path`` is for the message.
    """
    if isinstance(place, list) and isinstance(key, str):
        known = f", 0 to {len(place) - 1}" if place else " (the list is empty)"
        raise NoSuchItem(f"{path}: lacks the index of a list item{known}; write it like graders[0].weight")
    if not isinstance(place, list) or not isinstance(key, int) or key >= len(place):
        length = len(place) if isinstance(place, list) else 0
        known = f"its items are 0 to {length - 1}" if length else "the spec has no items at this path"
        raise NoSuchItem(f"{path}: there is no item {key}; {known}")
