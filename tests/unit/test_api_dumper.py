"""A value stays the same if it is dumped as YAML and read again by kubectl's rules."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rft_api.dumper import dump
from rft_api.loader import load_documents

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    # No whole floats above 2**53: kubectl writes them with their shortest digits, which may be the digits of
    # another integer.
    | st.floats(-(2.0**53), 2.0**53, allow_nan=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")) | st.just("\n"), max_size=20)
    | st.sampled_from(["1e-4", "y", "off", "0o7", "null", "~", "0x1f", "12_3", "- a", "a: b", "", " x "]),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.just("key"), children),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(value=values)
def test_every_value_is_unchanged_after_dumping_and_loading(value: Any) -> None:
    (document,) = load_documents(dump({"kind": "X", "value": value}))
    assert document.body == {"kind": "X", "value": value}


@pytest.mark.parametrize("text", ["1e-4", "y", "N", "off", "007"])
def test_text_that_kubectl_would_not_read_as_text_is_quoted(text: str) -> None:
    assert dump({"a": text}) == f"a: '{text}'\n"


def test_code_is_a_block_scalar_and_small_numbers_stay_numbers() -> None:
    assert dump({"inline": "def grade():\n    return 1\n"}) == "inline: |\n  def grade():\n      return 1\n"
    (document,) = load_documents(dump({"kind": "X", "rate": 1e-5}))
    assert document.body["rate"] == 1e-5
