"""The loader reads YAML by the same rules as kubectl."""

from pathlib import Path

import pytest

from rft_api.loader import UnreadableManifest, load_documents, load_file


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("5E3", 5000),
        ("8.0", 8),
        ("-0.0", 0),
        ("1e21", 1e21),
        ("9223372036854775808", 2.0**63),
        ("1e400", "1e400"),
        ("0X1f", 31),
        ("!!int '8'", 8),
        ("!foo 8", "8"),
        ("!!binary aGVsbG8=", "hello"),
        ("0.5", 0.5),
        (".5", 0.5),
        ("0x10", 16),
        ("010", 8),
        ("12", 12),
        ("-3", -3),
        ("yes", True),
        ("off", False),
        ("n", False),
        ("~", None),
        ("", None),
        ('"1e-4"', "1e-4"),
        ("2027-01-31T18:00:00Z", "2027-01-31T18:00:00Z"),
        ("1.2.3", "1.2.3"),
        ("7B", "7B"),
    ],
)
def test_plain_scalars_have_the_types_that_kubectl_gives_them(text: str, value: object) -> None:
    (document,) = load_documents(f"key: {text}")
    assert document.body["key"] == value
    assert type(document.body["key"]) is type(value)


def test_boolean_keys_become_texts_as_in_json() -> None:
    assert load_documents("{n: 1, 2: 3}")[0].body == {"false": 1, "2": 3}


def test_duplicate_keys_are_an_error_that_names_the_line() -> None:
    with pytest.raises(
        UnreadableManifest, match=r"line 2, column 1: the key 'a' occurs twice in this object"
    ):
        load_documents("a: 1\na: 2\n")


def test_each_document_and_each_list_item_becomes_an_object() -> None:
    text = "kind: A\n---\n---\nkind: List\nitems: [{kind: B}, {kind: C}]\n"
    assert [d.body["kind"] for d in load_documents(text)] == ["A", "B", "C"]


@pytest.mark.parametrize("text", [".inf", "-.inf", ".nan", "!!int 8.5", "!!float x"])
def test_nan_and_infinity_are_refused_with_the_line(text: str) -> None:
    with pytest.raises(UnreadableManifest, match="line 2"):
        load_documents(f"a: 1\nb: {text}")


def test_a_byte_order_mark_and_utf_16_are_read(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        path.write_bytes("kind: A\r\nname: ü\r\n".encode(encoding))
        assert load_file(path)[0].body == {"kind": "A", "name": "ü"}
    assert [d.body for d in load_documents("kind: A\n---\n\ufeffkind: B\n")] == [{"kind": "A"}, {"kind": "B"}]


def test_a_list_without_items_gives_no_objects() -> None:
    assert load_documents("kind: List\nitems:\n") == []


@pytest.mark.parametrize("items", ["", "[]", "[{kind: A}]"])
def test_an_object_that_is_no_list_keeps_its_items(items: str) -> None:
    (document,) = load_documents(f"kind: RFTJob\nitems: {items}\n")
    assert document.body["kind"] == "RFTJob"
    assert len(load_documents(f"kind: RFTJobList\nitems: {items}\n")) == items.count("{")


def test_a_document_on_the_line_of_its_separator_is_refused() -> None:
    with pytest.raises(UnreadableManifest, match="line 2"):
        load_documents("kind: A\n--- {kind: B}\n")


def test_a_later_anchor_replaces_an_earlier_one_and_a_merge_replaces_earlier_keys() -> None:
    assert load_documents("{a: &x 1, b: &x 2, c: *x}")[0].body == {"a": 1, "b": 2, "c": 2}
    assert load_documents("{a: &x {k: 1}, b: {k: 2, <<: *x}}")[0].body["b"] == {"k": 1}


def test_anchors_and_merges_work() -> None:
    assert load_documents("a: &x {b: 1}\nc: {<<: *x, d: 2}")[0].body["c"] == {"b": 1, "d": 2}


@pytest.mark.parametrize("text", ["[1, 2]", "just text", "a: [", "kind: List\nitems: [3]"])
def test_a_document_that_is_not_an_object_is_refused(text: str) -> None:
    with pytest.raises(UnreadableManifest):
        load_documents(text)
