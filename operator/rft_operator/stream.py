"""Parses a JSON list of objects from the API server: one object at a time, while the bytes arrive."""

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

_BEGIN = re.compile(r'"items"\s*:\s*(\[|null)')
_BETWEEN = " \t\r\n,"


class BrokenOff(Exception):
    """The response of the API server ended before its list was complete."""


def items(chunks: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the objects in the field ``items`` of a JSON list. The list arrives in ``chunks``, which may be
    cut anywhere.

    At most one object and one chunk are in memory. The other fields of the list, such as its metadata, are
    not returned.

    Raises:
        BrokenOff: if the chunks end before the list is complete.
    """
    text, decode = iter(chunks), codecs.getincrementaldecoder("utf-8")().decode
    scan = json.JSONDecoder().raw_decode
    held = ""
    while (begun := _BEGIN.search(held)) is None:
        held += _next(text, decode)
    if begun[1] == "null":
        return
    held, at = held[begun.end() :], 0
    while True:
        while at < len(held) and held[at] in _BETWEEN:
            at += 1
        if held.startswith("]", at):
            return
        try:
            item, at = scan(held, at)
        except json.JSONDecodeError:
            held, at = held[at:] + _next(text, decode), 0
        else:
            yield item


def _next(text: Iterator[bytes], decode: Any) -> str:
    for chunk in text:
        return str(decode(chunk))
    raise BrokenOff
