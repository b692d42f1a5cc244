"""Parses one line of a dataset into the messages of a row and its other fields."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rft_api.sources import Dataset, RowFormat
from rft_run.rows.messages import Message, checked, from_prompt, from_sharegpt
from rft_run.rows.strict import kind, value_of

MISSING = "both messages and prompt are missing"


@dataclass(frozen=True)
class RowLayout:
    """The layout of a dataset: the format of its rows, and the names of its columns."""

    format: RowFormat = "jsonl"
    columns: Mapping[str, str] = field(default_factory=dict)
    """The name of the column in the file, by the name of the field in the row."""
    where: str = "spec.dataset"
    """The field of the manifest that describes the dataset, for error messages."""

    @classmethod
    def of(cls, dataset: Dataset, where: str = "spec.dataset") -> "RowLayout":
        """Return the layout of ``dataset``, with the defaults filled in. ``where`` is its manifest field."""
        return cls(dataset.format or "jsonl", dataset.columns or {}, where)


class Parsed(NamedTuple):
    """The content of a row: its messages and its other fields."""

    messages: list[Message]
    fields: dict[str, Any]


def parsed(raw: bytes, layout: RowLayout) -> Parsed:
    """Parse a line that contains a row.

    Raises ValueError if the line has no valid row. The message does not contain the line number.
    """
    value = object_of(raw)
    fields = _renamed(value, layout)
    if layout.format == "sharegpt":
        turns = fields.pop("messages" if "messages" in layout.columns else "conversations", None)
        messages, answer = from_sharegpt(turns, fields.get("system"))
        return Parsed(messages, fields if answer is None else {"answer": answer} | fields)
    messages = fields.pop("messages", None)
    if messages is None and fields.get("prompt") is not None:
        return Parsed(from_prompt(fields["prompt"], fields.get("system")), fields)
    if messages is None:
        raise ValueError(MISSING)
    if layout.format == "csv" and isinstance(messages, str):  # a cell is always text
        messages = value_of(messages.encode())
    return Parsed(checked(messages), fields)


def object_of(raw: bytes) -> dict[str, Any]:
    """Return the JSON object in a line. Raises ValueError if the line is something else."""
    value = value_of(raw)
    if not isinstance(value, dict):
        raise ValueError(f"a row is a JSON object, not {kind(value)}")
    return value


def _renamed(value: dict[str, Any], layout: RowLayout) -> dict[str, Any]:
    """Return the fields of a row, renamed as ``layout.columns`` says.

    If the row already has a field with the new name, the renamed column replaces this field.

    Raises ValueError if a column is missing. But in CSV a column may be missing, because empty cells are left
    out of the row. Then the row has no field with the new name.
    """
    columns = layout.columns
    absent = [f"{column} (for {name})" for name, column in columns.items() if column not in value]
    if absent and layout.format != "csv":
        raise ValueError(f"column {', '.join(absent)} is missing")
    taken = {*columns, *columns.values()}
    kept = {name: found for name, found in value.items() if name not in taken}
    return kept | {name: value[column] for name, column in columns.items() if column in value}
