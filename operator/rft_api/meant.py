"""Guesses what a user meant by a wrong value or an unknown field in a manifest."""

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any

from rft_api.base import Model

OTHER_NAMES = {
    "n": "spec.sampling.numRollouts",
    "temp": "spec.sampling.temperature",
    "numgenerations": "spec.sampling.numRollouts",
    "groupsize": "spec.sampling.numRollouts",
    "rollouts": "spec.sampling.numRollouts",
    "maxnewtokens": "spec.sampling.maxTokens",
    "maxcompletiontokens": "spec.sampling.maxTokens",
    "maxcompletionlength": "spec.sampling.maxTokens",
    "stopsequences": "spec.sampling.stop",
    "lr": "spec.training.learningRate",
    "numepochs": "spec.training.epochs",
    "numtrainepochs": "spec.training.epochs",
    "nepochs": "spec.training.epochs",
    "r": "spec.training.loraRank",
    "rank": "spec.training.loraRank",
    "alpha": "spec.training.loraAlpha",
    "targetmodules": "spec.training.loraTargets",
    "batchsize": "spec.training.batchSizeTokens",
    "maxlength": "spec.training.maxContextLength",
    "contextlength": "spec.training.maxContextLength",
    "beta": "spec.training.klBeta",
    "klcoef": "spec.training.klBeta",
    "epsilon": "spec.training.clipLow",
    "epsilonhigh": "spec.training.clipHigh",
    "losstype": "spec.training.objective",
    "basemodel": "spec.model.name",
    "modelname": "spec.model.name",
    "trainfile": "spec.dataset",
    "trainingfile": "spec.dataset",
    "reward": "spec.graders",
    "rewards": "spec.graders",
    "maxsteps": "spec.stop.maxSteps",
}
"""The paths of fields, by the names that other programs and APIs use for these fields.

The names are in lower case, without dashes, underscores and spaces, as ``fold`` returns them."""

_IN_PLACE = {
    ("spec.model", "path"): "spec.model.name",
    ("spec.dataset", "path"): "spec.dataset.uri",
    ("spec.dataset", "file"): "spec.dataset.uri",
    ("spec.dataset", "url"): "spec.dataset.uri",
}
"""For names that users write by mistake in a certain object: the path of the field that they mean.

The key is the path of the object, and the mistaken name as ``fold`` returns it."""

_FIRST = ("spec.sampling.", "spec.training.")
"""If several objects have a field of the name that a user wrote, the user is assumed to mean the field whose
path begins with one of these prefixes."""

_SHORTEST_BEGINNING = 3
_MULTIPLES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_WORDS = {
    word: str(i)
    for i, word in enumerate(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    )
}
_TRUE, _FALSE = ("true", "yes", "on", "y", "1"), ("false", "no", "off", "n", "0")


def fold(name: str) -> str:
    """Return a name in lower case, without dashes, underscores and spaces.

    So two spellings of a name, such as ``top_k`` and ``topK``, become equal.
    """
    return re.sub(r"[-_\s]", "", name).lower()


def number(value: object, *, whole: bool) -> int | float | None:
    """Return the number that a user meant by a text, such as 32768 for ``32k`` and 0.1 for ``10%``.

    Return None if ``value`` is not a text, or if the text is no number. With ``whole``, also return None for
    a number with a fraction.
    """
    if not isinstance(value, str):
        return None
    text = re.sub(r"(?<=\d)[_ '](?=\d)|(?<=\d),(?=\d{3}(?!\d))", "", value.strip()).lower()
    text = re.sub(r"^(-?\d+),(\d+)", r"\1.\2", text)
    text = _WORDS.get(text, re.sub(r"(?<=\d)\s*(?:s|sec|seconds?)$", "", text))
    found = re.fullmatch(r"(-?\d*\.?\d+(?:e[-+]?\d+)?|-?\d+\.)\s*([kmg%]?)", text, re.ASCII)
    if not found:
        return None
    read = float(found[1]) / 100 if found[2] == "%" else float(found[1]) * _MULTIPLES[found[2]]
    if read in (float("inf"), float("-inf")):
        return None
    if read.is_integer() and abs(read) < 2**53:
        return int(read)
    return None if whole else read


def boolean(value: object) -> str:
    """Return the boolean that a user meant, as the text "true" or "false".

    For example, return "true" for ``yes`` or 1, and "false" for ``no`` or 0. Return "" for any other value.
    """
    text = str(value).strip().lower() if isinstance(value, str | int) else ""
    return "true" if text in _TRUE else "false" if text in _FALSE else ""


def field(name: str, names: Sequence[str], parent: str, everywhere: Iterable[str], foreign: str = "") -> str:
    """Return the path of the field that the user probably meant by ``name``, the name of an unknown field.

    - ``names``: the fields of the object that has the unknown field
    - ``parent``: the path of this object
    - ``everywhere``: the paths of all fields of the manifest
    - ``foreign``: the path that the tables of other programs have for ``name``, or an empty text

    The result is the first of these that exists, or an empty text if none exists:

    1. the path that the table of known mistakes gives for this name in this object
    2. a field of this object with an equal name
    3. a field of another object with an equal name, first of the objects within this one
    4. the field for a name that other programs use
    5. the only field of this object whose name begins with ``name``
    6. a field of this object with a similar name
    7. a field of another object with a similar name
    """
    key = fold(name)
    if found := _IN_PLACE.get((parent, key)):
        return found
    here = {fold(each): f"{parent}.{each}" if parent else each for each in names}
    elsewhere: dict[str, str] = {}
    inside = re.sub(r"\[\d*\]", "", parent) + "."
    for path in sorted(everywhere, key=lambda p: (not p.startswith(inside), not p.startswith(_FIRST))):
        elsewhere.setdefault(fold(path.rsplit(".", 1)[-1]), path)
    if found := here.get(key) or elsewhere.get(key):
        return found
    other = OTHER_NAMES.get(key, "") or foreign
    if other and (same := here.get(fold(other.rsplit(".", 1)[-1]))):
        return same
    return other or _begun(key, here) or _similar(key, here, 0.6) or _similar(key, elsewhere, 0.8)


def _begun(key: str, names: dict[str, str]) -> str:
    found = [path for name, path in names.items() if name.startswith(key)]
    return found[0] if len(key) >= _SHORTEST_BEGINNING and len(found) == 1 else ""


def _similar(key: str, names: dict[str, str], cutoff: float) -> str:
    close = difflib.get_close_matches(key, names, 1, cutoff)
    return names[close[0]] if close else ""


def all_paths(model: type[Model], prefix: str) -> Iterable[str]:
    """Yield the paths of all fields of a pydantic class, and of all fields of the classes that it contains.

    Each path begins with ``prefix``, and has no brackets for list items: ``spec.graders.name``, for example.
    """
    for name, info in model.model_fields.items():
        path = f"{prefix}.{info.alias or name}" if prefix else (info.alias or name)
        yield path
        nested = model_in(info.annotation)
        if nested is not None:
            yield from all_paths(nested, path)


def model_in(annotation: Any) -> type[Model] | None:
    """Return the subclass of ``Model`` in a type annotation, such as ``Grader`` for ``list[Grader] | None``.

    If there are several, return the first of them. Return None if there is no such class.
    """
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = model_in(argument)
        if found is not None:
            return found
    return None
