"""A list from the API server is parsed one item at a time, to save memory."""

import json

import pytest

from rft_operator.stream import BrokenOff, items

ITEMS = [{"name": "a", "text": 'ä "items": [', "nested": [{"x": 1}, []]}, {}, {"name": "c", "n": -1.5e3}]
WHOLE = {"kind": "NodeList", "metadata": {"resourceVersion": "7"}, "items": ITEMS}


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize("indent", [None, 2])
def test_items_do_not_depend_on_how_the_response_is_cut_into_chunks(size: int, indent: int | None) -> None:
    data = json.dumps(WHOLE, indent=indent, ensure_ascii=False).encode()
    assert list(items(data[at : at + size] for at in range(0, len(data), size))) == ITEMS


def test_an_item_is_yielded_before_the_next_one_arrives() -> None:
    data = json.dumps(WHOLE).encode()
    end = data.index(b"{}")
    read = []

    def chunks() -> object:
        for chunk in (data[:end], data[end:]):
            read.append(chunk)
            yield chunk

    found = items(chunks())  # type: ignore[arg-type]
    assert next(found) == ITEMS[0]
    assert len(read) == 1


@pytest.mark.parametrize("empty", [b'{"items":[]}', b'{"items": null}', b'{"metadata":{},"items":[ ]}\n'])
def test_a_list_may_be_empty(empty: bytes) -> None:
    assert list(items([empty])) == []


@pytest.mark.parametrize(
    "broken", [b"", b'{"kind":', b'{"items":[{"a":1}', b'{"items":[{"a":1},', b'{"items":[{"a']
)
def test_a_truncated_response_raises(broken: bytes) -> None:
    with pytest.raises(BrokenOff):
        list(items([broken]))
