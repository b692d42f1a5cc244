"""Checks the beginning of a dataset file. If it has another format than expected, such as Parquet, the error
says how to convert the file.
"""

import json
from collections.abc import Mapping
from typing import Any

from rft_run.errors import DataError
from rft_run.rows.messages import ANSWERED
from rft_run.rows.parsing import RowLayout, object_of, parsed

HEAD_BYTES = 1 << 20
"""Number of bytes that are read from the beginning of a dataset file to recognise its format."""
GZIP = b"\x1f\x8b"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_PANDAS = "python -c \"import pandas; pandas.{}('{}').to_json('rows.jsonl', orient='records', lines=True)\""
_MAGIC: tuple[tuple[bytes, str, str], ...] = (
    (b"PAR1", "Parquet", _PANDAS.format("read_parquet", "rows.parquet")),
    (b"ARROW1", "an Arrow file", _PANDAS.format("read_feather", "rows.arrow")),
    (b"PK\x03\x04", "a zip archive", "unzip it, or if it is a workbook, save its sheet as CSV"),
    (b"BZh", "bzip2", "bunzip2 rows.jsonl.bz2"),
    (b"\xfd7zXZ\x00", "xz", "unxz rows.jsonl.xz"),
    (b"\x28\xb5\x2f\xfd", "zstd", "unzstd rows.jsonl.zst"),
    (b"SQLite format 3\x00", "an SQLite database", "export its table as CSV"),
    (GZIP, "compressed by gzip twice", "gunzip it once"),
    (b"%PDF", "a PDF", "write its questions as rows"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "git lfs pull"),
    (b"\x00\x00\xfe\xff", "UTF-32", "iconv -f UTF-32 -t UTF-8 rows.txt > rows.jsonl"),
    (b"\xff\xfe\x00\x00", "UTF-32", "iconv -f UTF-32 -t UTF-8 rows.txt > rows.jsonl"),
    (b"\xff\xfe", "UTF-16", "iconv -f UTF-16 -t UTF-8 rows.txt > rows.jsonl"),
    (b"\xfe\xff", "UTF-16", "iconv -f UTF-16 -t UTF-8 rows.txt > rows.jsonl"),
    (b"{\x00", "UTF-16 without a byte order mark", "iconv -f UTF-16LE -t UTF-8 rows.txt > rows.jsonl"),
    (b"\x00{", "UTF-16 without a byte order mark", "iconv -f UTF-16BE -t UTF-8 rows.txt > rows.jsonl"),
)
"""File formats that are refused: the first bytes of such a file, the name of the format, and how to convert
the file."""
_TAR = slice(257, 262), b"ustar"
"""The bytes by which a tar archive is recognised: their position in the file, and their content."""
_QUESTIONS = ("question", "problem", "instruction", "query", "input", "text")
"""Usual names of a dataset's column with the prompt, the most likely name first."""
_ANSWERS = ("answer", "solution", "output", "response", "completion", "target", "label")
_NAMES = 8
"""Maximum number of column names that an error message lists."""
_SUPERVISED = "jq -c '.answer = .messages[-1].content | .messages |= .[:-1]' chats.jsonl > rows.jsonl"


def check(head: bytes, complete: bool, layout: RowLayout, place: str) -> None:
    """Raise DataError if a dataset file does not have the format that ``layout`` expects. The message says
    how to convert the file, or what to set in the manifest.

    - ``head`` is the beginning of the file, after unpacking.
    - ``complete`` says whether ``head`` is the whole file.
    - ``place`` is the name of the file in messages.

    Most errors in single rows are reported later, when the lines are read.
    """
    for magic, name, conversion in _MAGIC:
        if head.startswith(magic):
            raise _foreign(place, name, conversion)
    if head[_TAR[0]].startswith(_TAR[1]):
        raise _foreign(place, "a tar archive", "tar -xf rows.tar")
    text = head.removeprefix(BYTE_ORDER_MARK)
    if not text.strip():
        return
    if b"\n" not in text and b"}\r{" in text:
        raise _foreign(
            place, "text whose lines end with a carriage return alone", r"tr '\r' '\n' < old > rows.jsonl"
        )
    if layout.format == "csv":
        _check_csv(text, layout, place)
    else:
        _check_json(text, complete, layout, place)


def _foreign(place: str, seen: str, conversion: str) -> DataError:
    return DataError(f"{place}: is {seen}, but a dataset must be JSON lines; convert it: {conversion}")


def _check_csv(text: bytes, layout: RowLayout, place: str) -> None:
    if text.lstrip()[:2] in (b'{"', b"[{"):
        raise DataError(
            f'{place}: {layout.where}.format is csv, but the file begins with "{text.lstrip()[:1].decode()}"'
            " like JSON: leave format out"
        )


def _check_json(text: bytes, complete: bool, layout: RowLayout, place: str) -> None:
    first, newline, rest = text.lstrip().partition(b"\n")
    if not newline and not complete:
        return  # the first row is longer than the bytes that were read
    try:
        value = object_of(first)
    except ValueError as error:
        _check_no_line(text.lstrip(), rest, complete, layout, place)
        if not rest.strip():
            raise DataError(f"{place}: line 1: {error}") from error
        return
    _check_row(value, first, layout, place)


def _check_no_line(text: bytes, rest: bytes, complete: bool, layout: RowLayout, place: str) -> None:
    """Raise DataError if the beginning of a dataset file looks like HTML, CSV, or JSON that is not one object
    per line. Called if the first line of the file is not a JSON object.

    - ``text`` is the beginning of the file, and ``rest`` is this text after the first line.
    - ``complete`` says whether ``text`` is the whole file.
    - ``place`` is the name of the file in messages.
    """
    if text.startswith(b"<"):
        raise DataError(
            f'{place}: begins with "<" like a web page: check the address, and whether it needs a login'
        )
    if text.startswith(b"[") and text[1:].lstrip().startswith(b"{"):
        raise _foreign(place, "one JSON list", "jq -c '.[]' rows.json > rows.jsonl")
    if text.startswith(b"["):
        return
    if text.startswith(b"{"):
        _check_object_over_lines(text, complete, place)
        return
    header = text.partition(b"\n")[0].strip().decode(errors="replace")
    separator = next((sign for sign in ",;\t|" if sign in header), None)
    if separator is not None and rest.strip():
        raise DataError(
            f"{place}: looks like CSV with the columns {header[:80]!r}: set {layout.where}.format: csv, and"
            f" name the column with the prompt in {layout.where}.columns, e.g. columns: {{prompt: question}}"
        )


def _check_object_over_lines(text: bytes, complete: bool, place: str) -> None:
    if not complete:
        if text.partition(b"\n")[0].strip() == b"{":
            raise _foreign(place, "JSON whose objects span lines", "jq -c . rows.json > rows.jsonl")
        return
    decoded = text.decode(errors="replace")
    try:
        value, end = json.JSONDecoder().raw_decode(decoded)
    except (ValueError, RecursionError):
        return
    if "\n" in decoded[:end]:
        within = next((f".{key}[]" for key, rows in value.items() if _are_rows(rows)), ".")
        raise _foreign(place, "JSON whose objects span lines", f"jq -c '{within}' rows.json > rows.jsonl")


def _are_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and "role" not in value[0]


def check_columns(names: Mapping[str, Any], layout: RowLayout, place: str, holder: str) -> None:
    """Raise DataError if a dataset file lacks a column that ``layout`` names, or has no column with the
    prompt (``messages``, ``prompt`` or ``conversations``).

    - ``names`` has the names of the file's columns as keys.
    - ``place`` is the name of the file in messages.
    - ``holder`` says where in the file the columns were found, such as "the header".
    """
    seen = f"{holder} has {_listed(names)}"
    absent = [column for column in layout.columns.values() if column not in names]
    if absent:
        raise DataError(f"{place}: {layout.where}.columns names {', '.join(absent)}, but {seen}")
    if layout.format == "sharegpt":
        if "messages" not in layout.columns and "conversations" not in names:
            raise DataError(
                f"{place}: {seen}, but no conversations, which {layout.where}.format: sharegpt needs: leave"
                f" format out, or name the column, e.g. {layout.where}.columns: {{messages: {_first(names)}}}"
            )
    elif not {"messages", "prompt"} & (layout.columns.keys() | names.keys()):
        raise DataError(f"{place}: {seen}, but neither messages nor prompt: {_advice(names, layout)}")


def _check_row(value: dict[str, Any], raw: bytes, layout: RowLayout, place: str) -> None:
    """Raise DataError if the first row of a dataset is in the ShareGPT format although ``layout`` has another
    format, lacks a column, or ends with the assistant's answer. The message says what to change. Other errors
    in the row are reported later.

    ``value`` is the row, and ``raw`` is its line. ``place`` is the name of the file in messages.
    """
    name = "conversations" if value.get("messages", value.get("prompt")) is None else "messages"
    if layout.format == "jsonl" and not layout.columns and _is_sharegpt(value.get(name)):
        mapped = "" if name == "conversations" else f", and {layout.where}.columns: {{messages: messages}}"
        raise DataError(
            f"{place}: turns of {name} in the first row have from and value, as in ShareGPT: set"
            f" {layout.where}.format: sharegpt{mapped}"
        )
    check_columns(value, layout, place, "the first row")
    try:
        parsed(raw, layout)
    except ValueError as error:
        if str(error) == ANSWERED:
            raise DataError(
                f"{place}: the last message of the first row is the assistant's answer, as in data for"
                " supervised training. The model has to write the answer itself. Make the answer a field:"
                f" {_SUPERVISED}"
            ) from error


def _is_sharegpt(turns: object) -> bool:
    if not isinstance(turns, list) or not turns or not isinstance(turns[0], dict):
        return False
    return {"from", "value"} <= turns[0].keys()


def _advice(names: Mapping[str, Any], layout: RowLayout) -> str:
    """Return the end of an error message: which columns to set in the manifest for the prompt and the answer.
    They are guessed from the names of the file's columns (``names``).
    """
    lower = {name.lower(): name for name in names}
    asked = [lower[name] for name in _QUESTIONS if name in lower] or [_first(names)]
    answer = next((lower[name] for name in _ANSWERS if name in lower), "answer")
    columns = f"prompt: {asked[0]}" + (f", answer: {answer}" if answer != "answer" else "")
    joined = (
        f"; if the prompt needs several of the columns {', '.join(asked)}, first join them into one"
        if len(asked) > 1
        else ""
    )
    return f"name the column with the prompt, e.g. {layout.where}.columns: {{{columns}}}{joined}"


def _first(names: Mapping[str, Any]) -> str:
    return next(iter(names), "question")


def _listed(names: Mapping[str, Any]) -> str:
    listed = ", ".join(name[:40] for name in list(names)[:_NAMES])
    more = len(names) - _NAMES
    return (f"{listed} and {more} more" if more > 0 else listed) or "no fields"
