"""Parses one line of a dataset file into the chat messages of a row, and the row's other fields."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rft_api.sources import Dataset, RowFormat
from rft_run.rows.messages import Message, checked, from_prompt, from_sharegpt
from rft_run.rows.strict import kind, value_of

MISSING = "both messages and prompt are missing"


@dataclass(frozen=True)
class RowLayout:
    """The format of a dataset's rows, and the names of the columns that have other names in the file."""

    format: RowFormat = "jsonl"
    columns: Mapping[str, str] = field(default_factory=dict)
    """Maps the name of a field, such as ``prompt``, to the name of its column in the file."""
    where: str = "spec.dataset"
    """Path of the manifest's field that describes the dataset, for error messages."""

    @classmethod
    def of(cls, dataset: Dataset, where: str = "spec.dataset") -> "RowLayout":
        """Return the layout that the manifest's field ``dataset`` describes, with the defaults filled in.
        ``where`` is the path of this field, for error messages.
        """
        return cls(dataset.format or "jsonl", dataset.columns or {}, where)


class Parsed(NamedTuple):
    """A parsed row of a dataset: the chat messages of its prompt, and its other fields, such as an answer."""

    messages: list[Message]
    fields: dict[str, Any]


def parsed(raw: bytes, layout: RowLayout) -> Parsed:
    """Parse a line of a dataset file, which is a JSON object, into the messages and the other fields of a
    row.

    Raises ValueError if the line is not a valid row. The error's message does not have the line number.
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
    """Parse a line as a JSON object. Raises ValueError if the line is not JSON, or another JSON value."""
    value = value_of(raw)
    if not isinstance(value, dict):
        raise ValueError(f"a row is a JSON object, not {kind(value)}")
    return value


def _renamed(value: dict[str, Any], layout: RowLayout) -> dict[str, Any]:
    """Return the fields of a row. Each column that ``layout.columns`` names gets the name of its field. If
    the row already has a field with this name, the renamed column replaces it.

    Raises ValueError if one of these columns is missing. In CSV this is no error, because empty cells are
    left out of the row. Then the row does not have the field.
    """
    columns = layout.columns
    absent = [f"{column} (for {name})" for name, column in columns.items() if column not in value]
    if absent and layout.format != "csv":
        raise ValueError(f"column {', '.join(absent)} is missing")
    taken = {*columns, *columns.values()}
    kept = {name: found for name, found in value.items() if name not in taken}
    return kept | {name: value[column] for name, column in columns.items() if column in value}
