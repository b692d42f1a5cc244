"""Makes the manifest of a new job from the manifest of an earlier job, with some values changed."""

import copy
import itertools
import re
from collections.abc import Mapping
from typing import Any

from rft_advice.suggest import experiment_name, variant
from rft_api.fields import find

_IN_A_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,10}[A-Za-z0-9])?")
"""Matches a short value that can be part of an RFTJob's name."""
_PART = re.compile(r"([A-Za-z]\w*)((?:\[\d+\])*)", re.ASCII)


class NoSuchItem(LookupError):
    """A path names a list item that the spec does not have, or the path has a wrong form. The message says
    which items exist, or how to write the path.
    """


def rerun(document: Mapping[str, Any], values: Mapping[str, Any], name: str | None = None) -> dict[str, Any]:
    """Return the manifest of a new job: ``document`` with the new ``values``. The new manifest is not
    validated.

    ``values`` has the new values by path, such as ``training.loraRank`` or ``graders[0].weight``. The
    baseline of the new job is the job in ``document``.

    If ``name`` is None, the new name has three parts: the old name, the first changed field, and the new
    value of this field. If more fields change, their number is added.

    Raises UnknownField and NoSuchItem for a path that the spec does not have.
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
    """Set the value of the field at ``path``. Sections that are missing are added.

    Raises UnknownField and NoSuchItem for a path that the spec does not have.
    """
    find(path)
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
    """Raise NoSuchItem if ``place`` is not a list, or has no item with the index ``key``."""
    if isinstance(place, list) and isinstance(key, str):
        known = f", 0 to {len(place) - 1}" if place else " (the list is empty)"
        raise NoSuchItem(f"{path}: lacks the index of a list item{known}; write it like graders[0].weight")
    if not isinstance(place, list) or not isinstance(key, int) or key >= len(place):
        length = len(place) if isinstance(place, list) else 0
        known = f"its items are 0 to {length - 1}" if length else "the spec has no items at this path"
        raise NoSuchItem(f"{path}: there is no item {key}; {known}")
