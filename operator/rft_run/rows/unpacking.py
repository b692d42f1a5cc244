"""Reads a dataset file as JSON lines: unpacks gzip, and converts CSV. Each row keeps its line number."""

import codecs
import csv
import gzip
import io
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO

from rft_run import run_files
from rft_run.errors import DataError
from rft_run.rows.beginning import GZIP, HEAD_BYTES, check, check_columns
from rft_run.rows.parsing import RowLayout

CELL_CHARACTERS = 16 << 20
"""Maximum number of characters in a CSV cell. A longer cell is an error: probably a closing quote is missing.
"""
_SEPARATORS = {";": "a semicolon", "\t": "a tab", "|": "a bar"}
_TO_COMMAS = (
    'python -c "import csv, sys; csv.writer(sys.stdout).writerows(csv.reader(sys.stdin, delimiter={}))"'
    " < old.csv > rows.csv"
)


def is_packed(head: bytes, layout: RowLayout) -> bool:
    """Return whether a dataset file that begins with ``head`` is gzip or CSV, so that it must be converted to
    JSON lines before its rows are read.
    """
    return head.startswith(GZIP) or layout.format == "csv"


def json_lines(stream: IO[bytes], layout: RowLayout, place: str) -> Iterator[bytes]:
    """Return an iterator over the lines of a dataset file, as JSON lines. Gzip is unpacked, and CSV is
    converted.

    ``stream`` is the file. It must be at its beginning, and must support seek. ``place`` is the name of the
    file in messages.

    Each row has the line number that it has in the unpacked file. So the header of a CSV file becomes a blank
    line. If a CSV row has several lines, all but the first become blank lines.

    Raises DataError at once if the file does not have the format of ``layout``. The iterator raises DataError
    when it reaches an invalid part of the file.
    """
    packed = stream.read(len(GZIP)) == GZIP
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    plain: IO[bytes] = gzip.GzipFile(fileobj=stream) if packed else stream  # type: ignore[assignment]
    with _gzip_errors(place):
        head = plain.read(HEAD_BYTES + 1)
        check(head[:HEAD_BYTES], len(head) <= HEAD_BYTES, layout, place)
        plain.seek(0)
    most = max(run_files.UNPACKED_BYTES, run_files.UNPACKED_RATIO * size) if packed else run_files.MOST
    bounded = _bounded(run_files.lines(plain, most), place)
    lines = _from_csv(bounded, layout, place) if layout.format == "csv" else bounded
    return _unpacked(lines, place)


def _bounded(lines: Iterator[bytes], place: str) -> Iterator[bytes]:
    try:
        yield from lines
    except run_files.UnreadableFile as error:
        raise DataError(f"{place}: {error}") from error


@contextmanager
def _gzip_errors(place: str) -> Iterator[None]:
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"{place}: is a damaged gzip file ({error}): copy it again, then try gzip -t"
        ) from error


def _unpacked(lines: Iterator[bytes], place: str) -> Iterator[bytes]:
    with _gzip_errors(place):
        yield from lines


def _from_csv(plain: Iterator[bytes], layout: RowLayout, place: str) -> Iterator[bytes]:
    csv.field_size_limit(CELL_CHARACTERS)
    reader = csv.reader(_decoded(plain), strict=True)
    try:
        header = next((cells for cells in reader if cells), [])
        _check_header(header, layout, place)
        yield from [b"\n"] * reader.line_num
        before = reader.line_num
        for cells in reader:
            yield _row(header, cells, f"{place}: line {before + 1}")
            yield from [b"\n"] * (reader.line_num - before - 1)
            before = reader.line_num
    except csv.Error as error:
        raise DataError(f"{place}: line {reader.line_num}: {_meant(str(error))}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: after line {reader.line_num}: not UTF-8") from error


def _decoded(lines: Iterator[bytes]) -> Iterator[str]:
    """Decode the lines of a CSV file from UTF-8, and yield them as texts. A byte order mark is removed. A
    carriage return without a newline also ends a line.
    """
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    for line in lines:
        yield from io.StringIO(decoder.decode(line), newline="")
    decoder.decode(b"", final=True)


def _check_header(header: Sequence[str], layout: RowLayout, place: str) -> None:
    """Raise DataError if the header of a CSV file has another separator than the comma, has a name twice, or
    lacks a column that ``layout`` needs. ``place`` is the name of the file in messages.
    """
    if not header:
        return  # the file is empty: a later check reports that it has no rows
    separator = next((sign for sign in _SEPARATORS if sign in header[0]), None)
    if len(header) == 1 and separator is not None:
        raise DataError(
            f"{place}: its columns are separated by {_SEPARATORS[separator]}, not by a comma; convert it:"
            f" {_TO_COMMAS.format(repr(separator))}"
        )
    twice = ", ".join(sorted({repr(name) for name in header if header.count(name) > 1}))
    if twice:
        raise DataError(f"{place}: the column {twice} occurs twice: rename one of them")
    check_columns(dict.fromkeys(header), layout, place, "the header")


def _row(header: Sequence[str], cells: Sequence[str], where: str) -> bytes:
    """Return a CSV row as a line with a JSON object: its keys are the cells of the header. Empty cells are
    left out. A row without cells becomes a blank line.

    ``where`` is the place of the row in messages. Raises DataError if the row has more or fewer cells than
    the header.
    """
    if not cells:
        return b"\n"
    if len(cells) != len(header):
        raise DataError(
            f"{where}: has {len(cells)} cells, but the header has {len(header)}: write a text with a comma, a"
            ' quote or a line break in quotes, and each quote in it twice, as in "say ""yes"" or no"'
        )
    row = {name: cell for name, cell in zip(header, cells, strict=True) if cell}
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def _meant(error: str) -> str:
    """Return a message for users that says what is wrong in the file. ``error`` is the message of Python's
    csv module.
    """
    if "field larger than" in error:
        return f"a cell is longer than {CELL_CHARACTERS >> 20} Mi characters: is a closing quote missing?"
    if "unexpected end of data" in error:
        return "the file ends within quotes: a closing quote is missing"
    return f"not CSV: {error}"
