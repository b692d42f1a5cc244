"""An attempt ends if rows, graders or model changed since the first attempt. The error says what changed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from rft_run.config import RunConfig
from rft_run.errors import InputsChanged
from rft_run.folder import RunFolder
from rft_trainer.evaluate import RowScores, compare
from rft_trainer.inputs import refuse_other_inputs
from rft_trainer.runtime import machine
from tests.trainer.loop_support import config, run
from tests.unit.checkpoint_support import safetensors

CODE = "def grade(completion, row):\n    return 1.0\n"


@pytest.fixture
def asked(tmp_path: Path) -> RunConfig:
    """Return the configuration of a run that has recorded a step. Its grader's code is in a file."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.safetensors").write_bytes(safetensors("weights"))
    made = config(model, tmp_path / "run")
    (tmp_path / "grader.py").write_text(CODE)
    grader = {"name": "mine", "python": {"configMap": {"name": "code"}}}
    spec = type(made.spec).model_validate({**made.spec.dump(), "graders": [grader]})
    code = {"mine": str(tmp_path / "grader.py")}
    asked = made.model_copy(update={"spec": spec, "grader_code": code})
    attempt(asked)
    (tmp_path / "run" / "metrics.jsonl").write_text("{}\n")
    return asked


def attempt(asked: RunConfig) -> None:
    rows = {"spec.dataset": Path(asked.dataset_path)}
    refuse_other_inputs(asked, rows, {"spec.model": Path(asked.spec.model.name)}, lambda: None)


def reorder(lines: list[str]) -> list[str]:
    return [lines[0], lines[2], lines[1], *lines[3:]]


@pytest.mark.parametrize(
    ("change", "line"),
    [(reorder, 2), (lambda lines: [*lines, lines[0]], 71), (lambda lines: lines[:-1], 70)],
)
def test_other_rows_are_refused_with_the_first_line_that_differs(
    asked: RunConfig, change: Callable[[list[str]], list[str]], line: int
) -> None:
    rows = Path(asked.dataset_path)
    before = rows.read_text()
    rows.write_text("\n".join(change(before.splitlines())))
    with pytest.raises(
        InputsChanged, match=rf"spec.dataset: the first difference is in line {line}; the file had 70"
    ):
        attempt(asked)
    rows.write_text(before)  # with the old rows the run continues
    attempt(asked)


def test_rows_with_other_line_endings_are_the_same(asked: RunConfig) -> None:
    rows = Path(asked.dataset_path)
    rows.write_bytes(rows.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    attempt(asked)


def test_other_code_is_refused_even_if_it_does_the_same(asked: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "grader.py").write_text(CODE + "# a comment\n")
    with pytest.raises(InputsChanged, match=r"the text of grader mine's code: .* line 3"):
        attempt(asked)


def test_another_model_in_the_same_folder_is_refused(asked: RunConfig) -> None:
    (Path(asked.spec.model.name) / "model.safetensors").write_bytes(safetensors("others"))
    with pytest.raises(InputsChanged, match=r"spec.model: model.safetensors was .* bytes.*start a new run"):
        attempt(asked)


def lose_fingerprint(asked: RunConfig, *, lines: bool) -> None:
    """Remove the fingerprint from a run's folder. ``lines``: also remove the digests of the rows' lines."""
    folder = RunFolder(Path(asked.run_dir))
    folder.fingerprint.unlink()
    if lines:
        folder.line_digests_of("spec.dataset").unlink()


def test_without_the_fingerprint_changed_lines_are_still_found_and_the_rest_is_warned_about(
    asked: RunConfig, caplog: pytest.LogCaptureFixture
) -> None:
    folder = RunFolder(Path(asked.run_dir))
    folder.preflight.write_text("[]")
    lose_fingerprint(asked, lines=False)
    rows = Path(asked.dataset_path)
    before = rows.read_text()
    rows.write_text(before + "\n{}")
    with pytest.raises(InputsChanged, match=r"spec\.dataset.* changed since the run began: .* in line 71"):
        attempt(asked)
    rows.write_text(before)
    attempt(asked)
    assert "changes of graders and models since the run began cannot be found" in caplog.text
    assert folder.preflight.exists()


def test_a_folder_of_an_older_release_gets_the_fingerprint_of_the_next_attempt(asked: RunConfig) -> None:
    lose_fingerprint(asked, lines=True)
    rows = Path(asked.dataset_path)
    rows.write_text(rows.read_text() + "\n{}")
    attempt(asked)
    rows.write_text(rows.read_text() + "\n{}")
    with pytest.raises(InputsChanged, match="line 72"):
        attempt(asked)


def test_a_run_that_has_recorded_nothing_may_begin_with_other_inputs(asked: RunConfig) -> None:
    RunFolder(Path(asked.run_dir)).metrics.unlink()
    Path(asked.dataset_path).write_text("{}")
    attempt(asked)


def test_a_finished_attempt_keeps_another_one_from_other_rows(
    character_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: 1)
    asked = config(character_model, tmp_path / "run")
    run(asked)
    rows = Path(asked.dataset_path)
    lines = rows.read_text().splitlines()
    rows.write_text("\n".join([*reorder(lines)]))
    with pytest.raises(InputsChanged, match="line 2"):
        run(asked)
    lose_fingerprint(asked, lines=True)
    rows.write_text("\n".join(reversed(lines)))
    with pytest.raises(InputsChanged, match="used different held-out rows"):
        run(asked)


@pytest.mark.parametrize("content", ["", '{"step": 0, "lin', "[]", '{"step": 0}'])
def test_a_saved_evaluation_that_is_cut_is_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    folder = RunFolder(tmp_path)
    scores(0, [1], ["a"]).save(folder)
    assert RowScores.read(folder, 0) == scores(0, [1], ["a"])
    folder.evaluation_of(0).write_text(content)
    assert RowScores.read(folder, 0) is None
    assert str(folder.evaluation_of(0)) in caplog.text


def scores(step: int, lines: list[int], rows: list[str]) -> RowScores:
    return RowScores(step, lines, [0.5] * len(lines), {}, [], 0.0, rows)


@pytest.mark.parametrize(
    ("lines", "rows", "number"),
    [([1, 3], ["a", "b"], 2), ([1, 2], ["a", "c"], 2), ([1], ["a"], 2), ([1, 2, 3], ["a", "b", "c"], 3)],
)
def test_evaluations_of_other_rows_are_not_paired(lines: list[int], rows: list[str], number: int) -> None:
    base = scores(0, [1, 2], ["a", "b"])
    with pytest.raises(InputsChanged, match=f"first difference is at row number {number} "):
        compare(base, scores(4, lines, rows), 1)
    with pytest.raises(InputsChanged):
        compare(base, None, 1, best=scores(4, lines, rows))


def test_evaluations_of_an_older_release_are_paired_by_their_lines() -> None:
    assert compare(scores(0, [1, 2], []), scores(4, [1, 2], ["a", "b"]), 1).reward is not None
