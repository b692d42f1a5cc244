"""The errors of a run, and the line of text with which an error is shown."""

import pytest

from rft_run.errors import first_line


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("no such file", "no such file"),
        ("the first\nthe second", "the first"),
        ("\n\n  after blank lines\nmore", "after blank lines"),
        ("", "ValueError"),
        (" \n\t\n", "ValueError"),
    ],
)
def test_an_error_is_shown_by_its_first_line_that_is_not_blank(message: str, line: str) -> None:
    assert first_line(ValueError(message)) == line
