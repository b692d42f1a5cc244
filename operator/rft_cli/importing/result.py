"""The result of an import: a manifest, files beside it, and notes on fields that were changed or left out."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rft_api import API_VERSION, KIND, fields
from rft_api.foreign import NAMES, Origin, find

DIGITS = 3
"""Number of significant digits to which the import rounds the numbers that it computes, such as a learning
rate."""


def rows_of(file: str) -> dict[str, str]:
    """Return the value of ``spec.dataset`` for a file with rows: its URI, and the format csv for a CSV file.

    ``file``: a path or a URL.
    """
    return {"uri": file} | ({"format": "csv"} if file.lower().endswith(".csv") else {})


class Deviation(NamedTuple):
    """A note on a field of the imported file that the import changed or left out.

    - ``theirs``: the name of the field in the imported file
    - ``value``: its value there
    """

    theirs: str
    value: object
    done: str
    """A text for the user that says how the field was changed, or why it was left out."""

    def __str__(self) -> str:
        text = self.value if isinstance(self.value, str) else repr(self.value)
        shown = str(text).replace("\n", " ")
        value = f": {shown if len(shown) <= 60 else shown[:57] + '...'}" if shown else ""
        return f"{self.theirs}{value}: {self.done}"


class Options(NamedTuple):
    """Options of the command ``rft import``. They replace values of the imported file, or add missing ones.

    - ``model``: the model to train
    - ``rows``, ``evaluation_rows``: the files with the rows for training and for evaluation
    - ``evaluator``: the Python file of a Fireworks evaluator
    - ``judge_url``, ``judge_model``: the endpoint and the model of graders that ask a model
    """

    model: str | None = None
    rows: str | None = None
    evaluation_rows: str | None = None
    evaluator: str | None = None
    judge_url: str = "https://api.openai.com/v1"
    judge_model: str | None = None
    folder: str = "."
    """The folder of the imported file. Relative paths in the file refer to this folder."""

    def path(self, name: str) -> str:
        """Return the absolute path of a file that the imported file names. A URL is returned unchanged."""
        return name if "://" in name else str((Path(self.folder) / name).resolve())


class ImportProblem(ValueError):
    """A file of another program cannot be imported. The message says why, and what the user can do."""


@dataclass
class Draft:
    """The RFTJob that an import builds step by step: the parts of its manifest, the files to write beside the
    manifest, and notes on fields that were changed or left out.
    """

    origin: Origin
    spec: dict[str, Any] = field(default_factory=dict)
    graders: list[dict[str, Any]] = field(default_factory=list)
    notes: list[Deviation] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    """Contents of the files to write beside the manifest, by file name."""
    name: str = "imported"

    def note(self, theirs: str, value: object, done: str) -> None:
        """Add a note that a field was changed or left out, unless the draft already has the same note.

        - ``theirs``: the name of the field in the imported file
        - ``value``: its value there
        - ``done``: how the field was changed, or why it was left out
        """
        found = Deviation(theirs, value, done)
        if found not in self.notes:
            self.notes.append(found)

    def carry(self, theirs: str, value: Any) -> None:
        """Copy the value of a field of the imported file to the field of the RFTJob with the same meaning.

        ``theirs`` is the name of the field in the imported file. If an RFTJob has no such field, add a note
        that says so.
        """
        entry = find(self.origin, theirs)
        if entry is None:
            self.note(theirs, value, f"is no known field of {NAMES[self.origin]}, and is left out")
        elif not entry.ours:
            self.note(entry.theirs, value, f"no counterpart: {entry.note}")
        else:
            self.set(entry.ours, value, theirs)

    def set(self, path: str, value: Any, theirs: str) -> None:
        """Set the field ``path`` of the RFTJob, such as ``spec.training.epochs``, if the value is allowed.

        A number outside of the field's range becomes the nearest allowed number, and a note is added. If the
        function ``nearest`` finds no allowed value, the field is not set, and a note says so. ``theirs``: the
        field of the imported file, which the notes name.
        """
        fitting = nearest(path, value)
        if fitting is None:
            self.note(
                theirs, value, f"allowed for {path} is {fields.find(path).allowed}; the default is used"
            )
            return
        if fitting != value:
            self.note(theirs, value, f"{path} is {fitting}: allowed is {fields.find(path).allowed}")
        put(self.spec, path.removeprefix("spec."), fitting)

    def unique_name(self, wanted: str) -> str:
        """Return a valid name for a new grader, similar to ``wanted``. It differs from the names of all
        graders in the draft.
        """
        base = label(wanted) or "grader"
        taken = {grader["name"] for grader in self.graders}
        names = (base if i == 1 else f"{base[:58]}-{i}" for i in range(1, len(taken) + 2))
        return next(name for name in names if name not in taken)

    def manifest(self) -> dict[str, Any]:
        """Return the manifest of the RFTJob as nested dicts, ready to be written as YAML or JSON."""
        head = {key: self.spec[key] for key in ("model", "dataset") if key in self.spec}
        rest = {key: value for key, value in self.spec.items() if key not in head}
        return {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": self.name},
            "spec": {**head, "graders": self.graders, **rest},
        }


def label(text: str) -> str:
    """Make a name for a job or a grader from the part of ``text`` after the last slash, and return it.

    The name has only lowercase letters, digits and dashes, and begins with a letter. It is "" if the part has
    no letters and digits.
    """
    name = re.sub(r"[^a-z0-9]+", "-", text.rpartition("/")[2].lower()).strip("-")[:50].rstrip("-")
    return f"g-{name}" if name[:1].isdigit() else name


def put(body: dict[str, Any], path: str, value: Any) -> None:
    """Set the field of ``body`` at a path such as ``training.epochs``. Missing objects are added."""
    *parents, last = path.split(".")
    for part in parents:
        body = body.setdefault(part, {})
    body[last] = value


def nearest(path: str, value: Any) -> Any:
    """Return the value nearest to ``value`` that the RFTJob's field ``path`` allows.

    For a number, this is the nearest number in the field's range, or the nearest of its choices. A value of
    another type is returned unchanged if it is allowed. Return None if ``value`` has the wrong type, or is a
    text that is none of the choices. Also return None if the nearest number is a bound that is not allowed
    itself, such as 0 for a number that must be above 0.
    """
    known = fields.find(path)
    if known.type in ("integer", "number"):
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        if isinstance(value, float) and not math.isfinite(value):
            return None
        found: float = round(value) if known.type == "integer" else value
        if known.choices:
            return min(known.choices, key=lambda choice: (abs(choice - found), choice))
        least = found if known.minimum is None else max(found, known.minimum)
        nearest = least if known.maximum is None else min(least, known.maximum)
        return nearest if known.allows(nearest) else None
    if known.choices:
        return value if value in known.choices else None
    kinds: Mapping[str, type] = {"string": str, "boolean": bool}
    return value if isinstance(value, kinds.get(known.type, object)) else None
