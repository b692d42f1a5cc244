"""The fingerprint of a run's inputs changes exactly when rows, settings, code or models change."""

import io
from pathlib import Path

import pytest

from rft_run.fingerprint import (
    Fingerprint,
    Text,
    changes,
    file_digest,
    first_difference,
    line_digests,
    merged,
    model_digests,
)
from tests.unit.checkpoint_support import safetensors


def first_changed(before: bytes, now: bytes) -> int | None:
    return first_difference(line_digests(io.BytesIO(before)), line_digests(io.BytesIO(now)))


@pytest.mark.parametrize(
    ("now", "line"),
    [
        (b"a\nb\nc\n", None),
        (b"a\nb\nc", None),
        (b"a\r\nb\r\nc\r\n", None),
        (b"\xef\xbb\xbfa\nb\nc\n", None),
        (b"b\na\nc\n", 1),
        (b"a\nc\nb\n", 2),
        (b"a\nb\nc\nd\n", 4),
        (b"a\nb\n", 3),
        (b"a\nb\nc\n\n", 4),
        (b"", 1),
        (b"a\nb \nc\n", 2),
    ],
)
def test_the_first_line_that_differs_is_found_and_line_endings_do_not_count(
    now: bytes, line: int | None
) -> None:
    assert first_changed(b"a\nb\nc\n", now) == line


def folder_of_a_model(path: Path) -> Path:
    path.mkdir()
    (path / "config.json").write_text('{"hidden_size": 8, "transformers_version": "5.0"}')
    (path / "model.safetensors").write_bytes(safetensors("x" * 200_000))
    return path


def test_of_a_large_file_of_weights_the_header_and_blocks_from_all_over_it_count(tmp_path: Path) -> None:
    weights = folder_of_a_model(tmp_path / "model") / "model.safetensors"
    before = file_digest(weights)
    content = weights.read_bytes()
    for changed in (content.replace(b"weight", b"height"), content[:-1] + b"y", content + b"x"):
        weights.write_bytes(changed)
        assert file_digest(weights) != before
    weights.write_bytes(content.replace(b"x", b"z"))
    assert file_digest(weights) != before


def test_a_library_that_writes_its_version_into_a_configuration_changes_nothing(tmp_path: Path) -> None:
    folder = folder_of_a_model(tmp_path / "model")
    before = model_digests(folder)
    (folder / "config.json").write_text('{\n "transformers_version": "6.0", "hidden_size": 8}')
    (folder / "README.md").write_text("a page")
    assert model_digests(folder) == before
    (folder / "config.json").write_text('{"hidden_size": 16}')
    assert model_digests(folder) != before


def test_a_snapshot_of_the_hub_is_its_commit(tmp_path: Path) -> None:
    assert model_digests(tmp_path / "snapshots" / ("a" * 40)) == {"commit": "a" * 40}


BEFORE = Fingerprint(
    rows={"spec.dataset": Text(sha256="a" * 64, lines=3)},
    graders={"right": {"weight": 2.0}},
    code={"mine": ["1", "2"]},
    models={"spec.model": {"config.json": "10 bytes"}},
)


def test_each_change_is_named_with_what_was_there_before() -> None:
    now = Fingerprint(
        rows={"spec.dataset": Text(sha256="b" * 64, lines=4)},
        graders={"right": {"weight": 3.0}},
        code={"mine": ["1", "3"]},
        models={"spec.model": {"config.json": "11 bytes", "new.json": "1 bytes"}},
    )
    rows, settings, code, model = changes(BEFORE, now, {"spec.dataset": 2})
    assert "the rows of spec.dataset: the first difference is in line 2; the file had 3 lines" in rows
    assert settings == "the settings of grader right: weight was 2.0, is now 3.0"
    assert "the text of grader mine's code" in code
    assert "first difference is in line 2" in code
    assert "config.json was 10 bytes, is now 11 bytes, new.json was absent, is now 1 bytes" in model


def test_what_one_of_both_does_not_know_is_not_compared_and_is_kept() -> None:
    assert changes(BEFORE, Fingerprint(), {}) == []
    assert changes(Fingerprint(), BEFORE, {}) == []
    assert merged(Fingerprint(), BEFORE) == BEFORE
    assert merged(BEFORE, Fingerprint()) == BEFORE
