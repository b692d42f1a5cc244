"""Reads the rows of a file for ``rft new``, which writes a manifest for them.

It finds the columns, the lengths and the number of distinct prompts.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any, BinaryIO, NamedTuple

from rft_api.sources import RowFormat
from rft_cli.errors import INVALID, UNREADABLE, UserError
from rft_cli.local.inputs import Input
from rft_cli.local.rows import CHARACTERS_PER_TOKEN, READ_BYTES, RowLine, opened, prompt_tokens, row_lines
from rft_run.errors import DataError
from rft_run.rows import BYTE_ORDER_MARK, RowLayout
from rft_run.rows.unpacking import CELL_CHARACTERS

PROMPTS = ("prompt", "question", "problem", "instruction", "input", "query", "text")
"""Usual names of the column with the prompt. If a file has several of these columns, the first name here is
used.
"""
ANSWERS = (
    "answer", "reference_answer", "ground_truth", "solution", "expected", "target", "label", "output",
    "response",
)  # fmt: skip
"""Usual names of the column with the right answer. If rows have several of these columns, the first name here
is used."""


class Survey(NamedTuple):
    """The format, the columns and the lengths of the rows of a file."""

    format: RowFormat
    columns: dict[str, str]
    """The name of the column of each field of a row, by the field's name. Fields with the same name as their
    column are left out."""
    rows: int
    """Number of rows that were read."""
    prompts: int
    """Number of different prompts."""
    fields: dict[str, int]
    """For each field of a row except its messages, the number of rows that have it."""
    prompt_tokens: list[float]
    """Estimated length of each prompt, in tokens."""
    answers: dict[str, list[Any]]
    """For each field, its values that are texts or numbers. Rows without such a value are left out."""

    def lengths(self, field: str) -> list[float]:
        """Return the estimated length of each value of a field, in tokens."""
        return [len(_text(value)) / CHARACTERS_PER_TOKEN for value in self.answers.get(field, [])]


def surveyed(path: Path, prompt: str | None) -> Survey:
    """Return a survey of the rows of a file. Of a large file only about the first 32 MiB are read.

    ``prompt`` is the name of the column with the prompt. If it is None, the name is one of ``PROMPTS``,
    unless the rows have messages.

    Raises:
        UserError: if the file cannot be read or has no rows, or if the column with the prompt is not found.
    """
    form, names = _head(path)
    columns = _columns(names, prompt, form, path)
    layout = RowLayout(form, columns)
    try:
        with opened(Input(str(path))) as file:
            return _survey(form, columns, row_lines(file, str(path), layout))
    except DataError as error:
        raise UserError(str(error), UNREADABLE) from error


def _head(path: Path) -> tuple[RowFormat, list[str]]:
    """Return the format of a file and the names of its columns. Only the beginning of the file is read."""
    try:
        with path.open("rb") as file:
            head = file.read(1 << 20) if path.suffix == ".csv" else _first_line(file)
    except OSError as error:
        raise UserError(
            f"--rows: {path} cannot be read: {error.strerror}; name a file", UNREADABLE
        ) from error
    text = head.removeprefix(BYTE_ORDER_MARK).decode(errors="replace")
    if path.suffix == ".csv":
        csv.field_size_limit(CELL_CHARACTERS)
        try:
            return "csv", next(csv.reader(io.StringIO(text)), [])
        except csv.Error as error:
            raise UserError(f"--rows: {path}: its header cannot be read: {error}", UNREADABLE) from error
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise UserError(
            f"--rows: {path}: its first line is no JSON object; name a .csv file with a header, or a file"
            ' with one JSON object on each line, such as {"prompt": "What is 1 + 1?", "answer": 2}',
            UNREADABLE,
        )
    is_sharegpt = "conversations" in body and not {"messages", "prompt"} & set(body)
    return ("sharegpt" if is_sharegpt else "jsonl"), list(map(str, body))


def _first_line(file: BinaryIO) -> bytes:
    """Return the first line that is not blank, or b"" if there is none. At most ``READ_BYTES`` are read."""
    line = file.readline(READ_BYTES)
    while line and not line.removeprefix(BYTE_ORDER_MARK).strip():
        line = file.readline(READ_BYTES)
    return line


def _columns(names: list[str], prompt: str | None, form: RowFormat, path: Path) -> dict[str, str]:
    if prompt is not None:
        if prompt not in names:
            raise UserError(f"--prompt: {path} has no column {prompt!r}; it has {_listed(names)}", INVALID)
        return {} if prompt == "prompt" else {"prompt": prompt}
    if form == "sharegpt" or {"messages", "prompt"} & set(names):
        return {}
    found = next((name for name in PROMPTS if name in names), None)
    if found is None:
        said = f"--rows: {path} has neither messages nor prompt; its columns are {_listed(names)}"
        raise UserError(f"{said}; name the column of the prompt by --prompt", INVALID)
    return {"prompt": found}


def _listed(names: list[str]) -> str:
    """Return the names of columns as one text. Long names are cut, and at most twenty are listed."""
    others = f" and {len(names) - 20} others" if len(names) > 20 else ""
    return ", ".join(name if len(name) <= 60 else f"{name[:59]}…" for name in names[:20]) + others


def _survey(form: RowFormat, columns: dict[str, str], rows: Iterable[RowLine]) -> Survey:
    prompts: set[str] = set()
    fields: Counter[str] = Counter()
    lengths: list[float] = []
    answers: dict[str, list[Any]] = {}
    left = READ_BYTES
    for row in rows:
        shown = json.dumps(row.messages, sort_keys=True)
        prompts.add(shown)
        lengths.append(prompt_tokens(row))
        given = {name: value for name, value in row.fields.items() if value is not None and name != "prompt"}
        fields.update(given.keys())
        for name, value in given.items():
            if isinstance(value, str | int | float) and not isinstance(value, bool):
                answers.setdefault(name, []).append(value)
        left -= len(shown)
        if left <= 0:
            break
    if not lengths:
        raise DataError("--rows: has no rows; write one JSON object on each line")
    return Survey(form, columns, len(lengths), len(prompts), dict(fields), lengths, answers)


def answer_field(found: Survey) -> str | None:
    """Return the field with the right answer, or None if no field is likely to have it.

    Candidates are the fields that have a text or a number in every row. If candidates have a name in
    ``ANSWERS``, return the one whose name comes first there. If no candidate has such a name, return the only
    candidate, or None if there are several.
    """
    whole = [name for name, values in found.answers.items() if len(values) == found.rows]
    usual = next((name for name in ANSWERS if name in whole), None)
    return usual or (whole[0] if len(whole) == 1 else None)


def described(found: Survey, answer: str | None, max_tokens: int) -> list[str]:
    """Return lines about the rows: columns, lengths, prompts, and how many answers are longer than
    ``max_tokens``.
    """
    shares = [name if n == found.rows else f"{name} (in {n})" for name, n in found.fields.items()]
    lines = [
        f"rows: {found.rows} with {found.prompts} distinct prompts; fields beside the prompt:"
        f" {', '.join(shares) or 'none'}",
        f"prompts: about {_range(found.prompt_tokens)} tokens",
    ]
    if answer is not None and (lengths := found.lengths(answer)):
        cut = sum(length > max_tokens for length in lengths)
        said = (
            f"maxTokens {max_tokens} would cut {cut} answers" if cut else f"maxTokens {max_tokens} cuts none"
        )
        lines.append(
            f"{answer}: about {_range(lengths)} tokens; {said}, tokens of a thought before the"
            " answer are not counted"
        )
    return lines


def _range(lengths: list[float]) -> str:
    return f"{min(lengths):.0f} to {max(lengths):.0f} (median {median(lengths):.0f})"


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def are_numbers(values: Iterable[object]) -> bool:
    """Whether all values are numbers, or texts that are one number."""
    return all(_is_number(value) for value in values)


def _is_number(value: object) -> bool:
    try:
        float(str(value).replace(",", ""))
    except ValueError:
        return False
    return True


def dataset(found: Survey, uri: str) -> dict[str, Any]:
    """Return ``spec.dataset`` for the file at ``uri``, as a JSON object."""
    more: Mapping[str, Any] = {"format": found.format} if found.format != "jsonl" else {}
    return {"uri": uri, **more, **({"columns": found.columns} if found.columns else {})}
