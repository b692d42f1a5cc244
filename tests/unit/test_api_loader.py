"""YAML is read as kubectl reads it."""

import pytest

from rft_api.loader import UnreadableManifest, load_documents


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("5E3", 5e3),
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
def test_plain_scalars_are_what_kubectl_makes_of_them(text: str, value: object) -> None:
    (document,) = load_documents(f"key: {text}")
    assert document.body["key"] == value
    assert type(document.body["key"]) is type(value)


def test_boolean_keys_become_texts_as_in_json() -> None:
    assert load_documents("{n: 1, 2: 3}")[0].body == {"false": 1, "2": 3}


def test_duplicate_keys_are_an_error_that_names_the_line() -> None:
    with pytest.raises(UnreadableManifest, match=r"(?s)'a' stands here twice.*line 2"):
        load_documents("a: 1\na: 2\n")


def test_several_documents_and_lists_are_taken_apart() -> None:
    text = "kind: A\n---\n---\nkind: List\nitems: [{kind: B}, {kind: C}]\n"
    assert [d.body["kind"] for d in load_documents(text)] == ["A", "B", "C"]


def test_anchors_and_merges_work() -> None:
    assert load_documents("a: &x {b: 1}\nc: {<<: *x, d: 2}")[0].body["c"] == {"b": 1, "d": 2}


@pytest.mark.parametrize("text", ["[1, 2]", "just text", "a: [", "kind: List\nitems: [3]"])
def test_what_is_not_an_object_is_refused(text: str) -> None:
    with pytest.raises(UnreadableManifest):
        load_documents(text)
